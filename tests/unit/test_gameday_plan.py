"""The plan of a game day: each mistake is named with file, table, key, value and mend."""

import re
from pathlib import Path

import pytest

from resilience import ConfigurationError
from resilience.chaos.gameday import read_plan
from resilience.chaos.gameday.load import times
from resilience.chaos.gameday.plan import FaultTable, Workload

ROOT = Path(__file__).parents[2]
SOUND = """
seconds = 10
[[steady]]
call = "shop.stock"
[[workload]]
call = "shop.stock"
rate = 5
"""


def faults(**keys: object) -> str:
    """Return a sound plan with one fault."""
    lines = [f"{name} = {value!r}" for name, value in keys.items()]
    return "\n".join((SOUND, "[[faults]]", *lines))


def written(path: Path, text: str) -> Path:
    """Return a file with *text*."""
    plan = path / "plan.toml"
    plan.write_text(text)
    return plan


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("seconds = ", "Invalid value"),
        (
            SOUND.replace("rate", "ratte"),
            "[[workload]] 1, ratte = 5: the key is unknown in this table",
        ),
        (SOUND.replace("rate", "ratte"), "did you mean 'rate'?"),
        (SOUND.replace("= 10", "= -1"), "seconds = -1: Input should be greater than 0"),
        (SOUND.replace("seconds = 10", ""), "seconds: the key is missing; add it"),
        (
            SOUND.replace("rate = 5", ""),
            "[[workload]] 1: a workload needs either 'rate' or 'count'",
        ),
        (SOUND + "[promises]\nlost = 'no'", "[promises], lost = 'no': Input should be a valid int"),
        (faults(kind="stpo", target="broker", at=1), "[[faults]] 1, kind = 'stpo': Input should"),
        (
            faults(kind="stop", target="users", at=1, **{"for": 2}),
            "stop needs a target: one of broker",
        ),
        (
            faults(kind="stop", target="broker", at=1),
            "[[faults]] 1: stop needs the key 'for', in seconds",
        ),
        (
            faults(kind="kill-worker", target="a", at=1, **{"for": 2}),
            "has no duration; leave out 'for'",
        ),
        (
            faults(kind="slow", target="store", at=1, **{"for": 2}),
            "slow needs the key 'delay', in seconds",
        ),
        (
            faults(kind="error", at=1, **{"for": 2}),
            "error needs a target: the name of a dependency",
        ),
        (
            faults(kind="load", at=9, **{"for": 2}),
            "ends at 11 s, after the workload; set 'seconds'",
        ),
        (faults(kind="stop", target="database", at=1, **{"for": 2}), "needs a throw-away database"),
        (SOUND.replace("rate = 5", "rate = 0.05"), "[[workload]] 1 makes 0.5 calls in 10 s"),
        (SOUND.replace("rate = 5", "count = 10000000000"), "[[workload]] 1, count = 10000000000"),
        (
            faults(kind="load", at=1, **{"for": 2}).replace("rate = 5", "count = 5"),
            "load multiplies rates, and no workload has one",
        ),
        (
            faults(kind="stop", target="broker", at=1, rate=0.5, **{"for": 2}),
            "only faults of a dependency have a 'rate'",
        ),
        (
            faults(kind="error", target="users", at=1, factor=2.0, **{"for": 2}),
            "only load has a 'factor'",
        ),
        (
            "\n".join(
                (
                    faults(kind="stop", target="broker", at=1, **{"for": 3}),
                    '[[faults]]\nkind = "freeze"\ntarget = "broker"\nat = 2\nfor = 1',
                )
            ),
            "another fault of broker ends at 4 s; let one follow the other",
        ),
    ],
)
def test_mistake_in_a_plan_is_named_with_its_place_and_mend(
    text: str, mistake: str, tmp_path: Path
) -> None:
    """Whoever wrote it finds it, and knows what to write."""
    plan = written(tmp_path, text)

    with pytest.raises(ConfigurationError) as raised:
        read_plan(plan)

    assert str(plan) in str(raised.value)
    assert mistake in str(raised.value)


def test_plan_without_promises_promises_that_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    """What nobody promises in writing is promised all the same."""
    promises = read_plan(written(tmp_path, SOUND)).promises

    assert (promises.lost, promises.duplicates, promises.marked) == (0, 0, True)
    assert promises.p99 is None


def test_committed_plan_of_the_shop_is_sound() -> None:
    """It can be read."""
    assert read_plan(ROOT / "demo" / "gameday.toml").faults


def test_plan_of_the_page_is_sound(tmp_path: Path) -> None:
    """It can be read; a long test plays it."""
    page = (ROOT / "docs" / "gameday.md").read_text()
    [text] = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)

    assert read_plan(written(tmp_path, text)).faults


def test_calls_are_due_at_their_rate_and_more_of_them_under_load() -> None:
    """Five a second for four seconds, and three times as many in one of them."""
    peak = FaultTable.model_validate({"kind": "load", "at": 1, "for": 1, "factor": 3})

    due = list(times(Workload(call="a", rate=5), [peak], 4.0))

    assert len(due) == 30
    assert len([one for one in due if 1 <= one < 2]) == 15


def test_count_of_calls_is_kept_under_load() -> None:
    """So many in all, whatever the load."""
    peak = FaultTable.model_validate({"kind": "load", "at": 1, "for": 1, "factor": 3})

    assert len(list(times(Workload(call="a", count=7), [peak], 4.0))) == 7
