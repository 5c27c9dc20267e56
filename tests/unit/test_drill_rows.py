"""What is shown of drills: counted in any process, added up in the store, read with suspicion."""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Dependency, Level, Resilience, ResilientTask, Settings, fallback
from resilience.cli.status import _lines
from resilience.events import FallbackDrilled, FallbackDrillFailed
from resilience.monitor.drills import drill_rows
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.status import look
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

SECONDS = 20.0
TASK = '["drills","shop.rank","ranking",'


@pytest.fixture
def adopted(valkey: ValkeyProcess) -> Iterator[Resilience]:
    """An app that counts, with one task whose chain is drilled."""
    app: Celery[Any] = Celery("drilled", broker="memory://", set_as_current=False)
    settings = Settings(
        store_url=valkey.url,
        namespace=uuid4().hex,
        store_timeout_seconds=10,
        ledger_url="sqlite:///:memory:",
    )
    made = Resilience(
        app,
        dependencies=[Dependency("ranking")],
        settings=settings,
        listeners=[PrometheusListener()],
    )
    chain = [fallback.drill(share=0.5), fallback.static(0)]

    def rank() -> None:
        """Do nothing."""

    kinds: Any = {"base": ResilientTask, "dependency": "ranking", "shared": False}
    declare: Any = app.task(name="shop.rank", fallbacks=chain, **kinds)
    declare(rank)
    yield made
    made.store.client.close()
    app.close()


def drilled(call: str = "shop.rank", *, level: Level = Level.STALE) -> FallbackDrilled:
    """Return what a drill announces of a chain that would have answered."""
    return FallbackDrilled(
        call=call,
        dependency="ranking",
        level=level,
        source="stale",
        age=41.0,
        seconds=0.25,
        reasons={},
    )


def failed(reason: str = "gone") -> FallbackDrillFailed:
    """Return what a drill announces of a chain that would not."""
    reasons = {"1. stale": reason}
    return FallbackDrillFailed(call="shop.rank", dependency="ranking", seconds=0.5, reasons=reasons)


def row_of(adopted: Resilience, drills: int, task: str = "shop.rank") -> dict[str, Any]:
    """Wait until so many drills of a task are counted, and return its row."""

    def found() -> list[dict[str, Any]]:
        rows = [one for one in drill_rows(adopted) if one["task"] == task]
        return [one for one in rows if one["drills"] == drills]

    return wait_until(found, SECONDS, f"{drills} drills are counted")[0]


def lines_of(adopted: Resilience) -> str:
    """Return the lines of a status about drills."""
    return "\n".join(one for one in _lines(look(adopted)) if "drill" in one)


def test_declared_drill_is_shown_before_the_first_one(adopted: Resilience) -> None:
    """So that nobody waits for what is not on."""
    row = row_of(adopted, 0)

    assert (row["dependency"], row["share"], row["last"]) == ("ranking", 0.5, None)
    assert (row["worst"], row["failed_at"]) == (None, None)
    assert lines_of(adopted) == "drill shop.rank: none yet"


def test_drills_are_counted_with_the_worst_level_and_the_last_answer(adopted: Resilience) -> None:
    """How many would have answered, at worst at which level, and how fast and stale the last."""
    for event in (drilled(level=Level.REDUCED), failed(), drilled(), drilled()):
        adopted.announce(event)
    row = row_of(adopted, 4)

    assert (row["answered"], row["worst"]) == (3, "REDUCED")
    last = row["last"]
    assert (last["level"], last["source"], last["age"], last["seconds"]) == (
        "STALE",
        "stale",
        41.0,
        0.25,
    )
    assert 0 <= adopted.fleet_time() - last["at"] < SECONDS
    assert row["failed_at"] <= last["at"]
    assert re.sub(r"last \d+s", "last 0s", lines_of(adopted)) == (
        "drill shop.rank: last 0s ago, 75% of 4 would answer, at worst REDUCED; "
        "the last: STALE by stale in 0.250 s, 41s old"
    )


def test_chain_whose_last_drill_failed_is_a_note_without_secrets(adopted: Resilience) -> None:
    """Somebody should see to it, though no answer is degraded."""
    adopted.announce(failed("redis://ann:hunter22@host refused password=hunter22"))
    row_of(adopted, 1)

    report = look(adopted)
    [note] = [one for one in report["notes"] if one["kind"] == "drill"]
    assert note["name"] == "shop.rank"
    assert "no fallback would have answered (1. stale: redis://" in note["why"]
    assert "hunter22" not in json.dumps(report)
    assert "note shop.rank: its last drill found" in lines_of(adopted)


def test_call_that_is_no_task_counts_as_other(adopted: Resilience) -> None:
    """Names of pipelines are without bound, and each would be a series for ever."""
    adopted.announce(drilled("anything"))

    assert row_of(adopted, 1, "other")["share"] == 0.0
    kept = adopted.store.run(lambda client: client.hkeys(adopted.store.key("totals")))
    assert not any(b"anything" in name for name in kept)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"at": -1, "seconds": 0}',
        '{"at": 1, "seconds": "soon"}',
        '{"at": 1e999, "seconds": 0}',
        json.dumps({"at": 1, "seconds": 0, "source": "x" * 100_000}),
        json.dumps({"at": 1, "seconds": 0, "reasons": {str(n): "" for n in range(1_000)}}),
    ],
    ids=["empty", "list", "null", "negative", "words", "infinite", "long", "many"],
)
def test_what_nobody_of_ours_wrote_is_left_out(adopted: Resilience, text: str) -> None:
    """The counts are shown all the same."""
    store, series = adopted.store, f'{TASK}"STALE"]'
    store.run(lambda client: client.hset(store.key("totals"), series, "3"))
    store.run(lambda client: client.hset(store.key("exemplars"), series, text))

    assert row_of(adopted, 3)["last"] is None
    assert lines_of(adopted) == (
        "drill shop.rank: none for a day, 100% of 3 would answer, at worst STALE"
    )
