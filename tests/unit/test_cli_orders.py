"""Orders about circuits and features, as the command line gives and shows them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner

from resilience import Dependency, Feature, Level, Resilience, Settings
from resilience.cli import resilience
from resilience.flags.document import Cost, Document, Order
from resilience.testing.valkey import ValkeyProcess

WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}
BY = ("--actor", "ann", "--reason", "drill")
AGES = {"search": 10.0, "search.ranking": 30.0, "search.spelling": 20.0, "wishes": 40.0}
"""How many seconds ago each feature was switched off: neither the first nor the last is oldest."""
MILD = "wishes"
"""A feature without which answers are better than without the others."""


@pytest.fixture
def adopted(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Resilience]:
    """What an app in a fleet of its own has declared."""
    app: Celery[Any] = Celery("shop", broker="memory://", set_as_current=False)
    settings = Settings(
        store_url=valkey.url,
        store_timeout_seconds=10,
        ledger_url=f"sqlite:///{tmp_path}/ledger.db",
        namespace=uuid4().hex,
    )
    features = [
        Feature(name, level=Level.STALE if name == MILD else Level.REDUCED) for name in AGES
    ]
    made = Resilience(
        app, dependencies=[Dependency("users")], features=features, settings=settings, listeners=()
    )
    yield made
    made.ledger.close()
    made.store.client.close()


def said(adopted: Resilience, *words: str) -> str:
    """Return what `celery resilience` prints for *words*."""
    context = CLIContext(app=adopted.app, no_color=True, workdir=None)
    done = CliRunner().invoke(resilience, words, obj=context)
    assert done.exit_code == (1 if words[0] == "status" else 0), done.output
    return done.stdout


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("open", "forced_open"),
        ("close", "forced_closed"),
        ("observe", "observed"),
        ("reset", "closed"),
    ],
)
def test_circuit_does_what_was_ordered(adopted: Resilience, verb: str, state: str) -> None:
    """Each order says and lists the state that it is named after, whatever was ordered before."""
    before = "close" if verb == "open" else "open"
    said(adopted, "breaker", before, "users", *BY)

    assert said(adopted, "breaker", verb, "users", *BY) == f"users: {state}\n"

    [row] = json.loads(said(adopted, "breaker", "--json"))
    assert row["state"] == state


def test_cost_is_shown_with_half_the_width_of_its_interval(
    adopted: Resilience, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true cost lies no further from the estimate than the number behind the ±."""
    monkeypatch.setenv("COLUMNS", "200")
    cost = Cost(seconds=0.04, low=0.03, high=0.05, calls=1000, at=0.0)
    adopted.flags.change(lambda now, _: now.model_copy(update={"costs": {"search": cost}}))

    assert "│ 0.04 s ± 0.01 " in said(adopted, "flag", "list")


def test_status_says_since_when_the_app_degrades(adopted: Resilience) -> None:
    """It is at its level since the first of the reasons of that level which are in force began."""

    def edit(now: Document, time: float) -> Document:
        orders = {
            name: Order(state="off", until=time + 60, at=time - age, version=1, **WHO)
            for name, age in AGES.items()
        }
        return now.model_copy(update={"orders": orders})

    made = adopted.flags.change(edit)

    found = json.loads(said(adopted, "status", "--json"))
    assert [one["name"] for one in found["reasons"]] == list(AGES)
    assert found["since"] == made.orders["search.ranking"].at
