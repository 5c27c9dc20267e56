"""Objectives: what they accept, what they are about, and what they make of counts."""

import json
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from pydantic import ValidationError

from resilience import Dependency, Resilience
from resilience.errors import ConfigurationError
from resilience.monitor.metrics import LABELS, read_counts
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener

KNOWN = {**LABELS, "dependency": {"users", ""}, "task": {"shop.rank"}}
UNTIL = {
    ("answers", "shop.rank", "users", "FULL"): 985.0,
    ("answers", "shop.rank", "users", "STALE"): 15.0,
    ("answers", "other", "", "FULL"): 1000.0,
    ("minutes_below_full", "users"): 3.0,
}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"full": 1.0}, "1"),
        ({"full": 99.5}, "99.5"),
        ({"full": 0.9, "window": "90d"}, "35 days"),
        ({"full": 0.9, "window": "5 parsecs"}, "parsecs"),
        ({"full": 0.9, "windows": "30d"}, "windows"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_in_an_objective_are_named(wrong: dict[str, Any], named: str) -> None:
    """A share in percent, a window that is not kept and a misspelt name are refused at once."""
    with pytest.raises(ValidationError, match=named):
        Objective(**wrong)


def test_window_may_be_text_or_a_duration() -> None:
    """30 days are 30 days in both ways, and the default."""
    assert Objective(full=0.9, window="30d") == Objective(full=0.9, window=timedelta(days=30))  # type: ignore[arg-type] # text is read
    assert Objective(full=0.9).window == timedelta(days=30)


@pytest.mark.parametrize(
    ("about", "rate"),
    [
        pytest.param({"dependency": "users"}, 3.0, id="dependency"),
        pytest.param({"task": "shop.rank"}, 3.0, id="task"),
        pytest.param({}, 1.5, id="app"),
        pytest.param({"task": "nobody"}, 0.0, id="no-answers"),
    ],
)
def test_burn_rate_is_the_share_below_full_over_what_is_allowed(
    about: dict[str, str], rate: float
) -> None:
    """1.5 % below FULL burn a budget of 0.5 % three times too fast; no answers burn nothing."""
    objective = Objective(full=0.995, **about)  # type: ignore[arg-type] # texts

    assert objective.burn_rate(objective.levels(UNTIL, {})) == pytest.approx(rate)


def test_answers_before_the_window_do_not_count() -> None:
    """Only the difference counts; a store that has lost counts gives no negative ones."""
    before = {
        ("answers", "shop.rank", "users", "STALE"): 15.0,
        ("answers", "other", "", "FULL"): 2e3,
    }
    levels = Objective(full=0.995).levels(UNTIL, before)

    assert levels == {"FULL": 985.0, "STALE": 0.0, "REDUCED": 0.0, "STATIC": 0.0, "FAILED": 0.0}


def test_hostile_series_of_the_store_are_left_out_or_folded() -> None:
    """Whatever writes into the totals: labels stay bounded, and nothing else is read."""
    good = json.dumps(["answers", "shop.rank", "users", "FULL"])
    fields = {
        good.encode(): b"2",
        json.dumps(["answers", "<script>\n", "x" * 500, "FULL"]).encode(): b"3",
        json.dumps(["answers", "evil", "users\x1b[2J", "FULL"]).encode(): b"4",
        json.dumps(["answers", "shop.rank", "users", "SUPER"]).encode(): b"5",
        json.dumps(["queue_wait_seconds", "users", "0.5"]).encode(): b"6",
        b"nonsense": b"1",
        b"\xff\xfe": b"1",
        b"[" * 100_000: b"1",
        json.dumps(["answers", "x" * 10_000, "users", "FULL"]).encode(): b"1",
        json.dumps(["answers"]).encode(): b"1",
        json.dumps(["no_metric", "users"]).encode(): b"1",
        json.dumps(["queue_wait_seconds", "users", "7e9"]).encode(): b"1",
        json.dumps(["answers", 1, 2, 3]).encode(): b"1",
        json.dumps({"a": 1}).encode(): b"1",
        json.dumps(["events", "JobBuried", "users"]).encode(): b"nan",
        json.dumps(["events", "JobParked", "users"]).encode(): b"-1",
        json.dumps(["events", "JobKept", "users"]).encode(): b"1e999",
        json.dumps(["minutes_below_full", "users"]).encode(): b"7|1700000000",
    }

    counts = read_counts(fields, KNOWN)

    assert sum(Objective(full=0.9).levels(counts, {}).values()) == 9
    assert counts == {
        ("answers", "shop.rank", "users", "FULL"): 2,
        ("answers", "other", "other", "FULL"): 7,
        ("answers", "shop.rank", "users", "other"): 5,
        ("queue_wait_seconds", "users", "0.5"): 6,
        ("minutes_below_full", "users"): 7,
    }


def test_objective_about_an_unknown_dependency_is_refused() -> None:
    """A misspelt dependency is an error where the app is made, with the name that was meant."""
    listener = PrometheusListener(objectives=[Objective(full=0.9, dependency="user")])
    app = Celery(broker="memory://", set_as_current=False)

    with pytest.raises(ConfigurationError, match="did you mean 'users'"):
        Resilience(app, dependencies=[Dependency("users")], listeners=[listener])


def test_listener_counts_for_one_app() -> None:
    """One listener for two apps would mix up their totals."""
    listener = PrometheusListener()
    apps = [Celery(broker="memory://", set_as_current=False) for _ in range(2)]
    Resilience(apps[0], dependencies=[], listeners=[listener])

    with pytest.raises(ConfigurationError, match="make another one"):
        Resilience(apps[1], dependencies=[], listeners=[listener])
