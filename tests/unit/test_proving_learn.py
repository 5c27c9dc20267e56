"""What a proof learns from declarations and records."""

import os
from typing import Any

import pytest
from celery import Celery, Task

from resilience import (
    ConfigurationError,
    Dependency,
    FanOut,
    FireAndForgetTask,
    Level,
    Resilience,
    ResilientTask,
    Settings,
    fallback,
    part,
)
from resilience.chaos import Call
from resilience.chaos.proving.learn import call_facts, limit_of, predicted_seconds, touches_of
from resilience.chaos.proving.plan import CallFacts, Kind, PartFacts, Planned, Run, Touch
from resilience.events import AnswerDegraded, Event

app = Celery("learning", broker="redis://127.0.0.1:1/0", set_as_current=False)
adopted = Resilience(
    app,
    dependencies=[Dependency("users", timeout=0.5), Dependency("mail", timeout=None)],
    settings=Settings(),
)


@app.task(
    shared=False, base=ResilientTask, dependency="users", fallbacks=[fallback.stale(max_age=1)]
)
def user() -> str:
    """Answer."""
    return "ann"


@app.task(shared=False, base=ResilientTask, dependency="mail")
def plain_mail() -> None:
    """Send."""


@app.task(shared=False, base=FireAndForgetTask, dependency="mail")
def mail() -> None:
    """Send for sure."""


def called(task: Task[Any, Any], job: str | None, **fields: object) -> dict[str, object]:
    """Return the record of a call in a job of *task*."""
    return {
        "record": "FaultInjected",
        "call": task.name,
        "dependency": task.dependency,
        "job": job,
        "budget": None,
        "pid": os.getpid() + 1,
        **fields,
    }


def published(
    task: Task[Any, Any], job: str, part: str | None = None, *, stale: bool = False
) -> dict[str, object]:
    """Return the record of a job that was published."""
    return {"record": "published", "task": task.name, "id": job, "part": part, "stale": stale}


def test_facts_are_those_of_the_declarations() -> None:
    """A chain's last level, and of each part whether it is required, and may be stale."""
    whole = FanOut(user=part(user.s(), required=True), mail=part(plain_mail.s(), stale=60))

    assert call_facts("u", Call(user)) == CallFacts(
        name="u", task=Level.STALE, required=frozenset(), silent=frozenset()
    )
    assert call_facts("w", Call(whole, budget=1.0)) == CallFacts(
        name="w",
        parts={
            "user": PartFacts(worst=Level.STALE, required=True),
            "mail": PartFacts(stale=True),
        },
        timed=True,
        required=frozenset(),
        silent=frozenset(),
    )


def test_touches_say_who_called_and_how() -> None:
    """Jobs and callers, parts, the longest budget, and what may stand in."""
    records = [
        published(user, "1", "user"),
        called(user, "1", budget=1.0),
        called(user, None, budget=None),
        published(mail, "2"),
        called(mail, "2"),
    ]
    facts = CallFacts(name="page", parts={"user": PartFacts()})

    assert touches_of(adopted, facts, records) == {
        "users": Touch(dependency="users", budget=1.0, parts=frozenset({"user"}), remembered=True),
        "mail": Touch(dependency="mail", kept=True),
    }


def test_stale_part_may_stand_in_and_a_kept_job_only_counts_alone() -> None:
    """A part that is published with `stale` is remembered; one plain job makes both of them so."""
    records = [
        published(plain_mail, "1", "mail", stale=True),
        called(plain_mail, "1", pid=os.getpid()),
        published(mail, "2"),
        called(mail, "2", pid=os.getpid()),
    ]

    assert touches_of(adopted, CallFacts(name="page"), records) == {
        "mail": Touch(dependency="mail", worker=False, remembered=True)
    }


@pytest.mark.parametrize(
    ("call", "kind", "seconds"),
    [
        pytest.param(Call(user), "error", 1.5, id="timeout-of-the-call-and-of-the-step"),
        pytest.param(Call(user), "killed", 9.5, id="runs-elsewhere"),
        pytest.param(Call(plain_mail), "hang", None, id="nothing-limits-it"),
        pytest.param(Call(plain_mail, budget=2.0), "hang", 2.0, id="budget"),
        pytest.param(Call(plain_mail, budget=2.0), "late", 4.0, id="dropped-after-its-budget"),
        pytest.param(Call(mail), "hang", 1.0, id="kept"),
        pytest.param(Call(str), "hang", None, id="function"),
        pytest.param(Call(str, budget=2.0), "late", 2.0, id="function-with-a-budget"),
    ],
)
def test_limit_is_the_budget_or_what_check_predicts(
    call: Call, kind: Kind, seconds: float | None
) -> None:
    """A caller is promised the budget; without one, what `resilience check` says of the task."""
    run = Run(call="page", faults=(Planned("users", kind),), worst=Level.FULL)

    assert limit_of(call, predicted_seconds(adopted, call), run) == seconds


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"target": 7}, "a task, a FanOut or a function, got 7"),
        ({"target": str, "budget": 0.0}, "budget must be more than 0 seconds, got 0.0"),
        ({"target": FanOut(user=user.s())}, "a fan-out has a deadline; write Call(fan_out, budget"),
        ({"target": str, "required": "users"}, "required is a list of dependencies, got 'users'"),
    ],
)
def test_mistaken_call_is_an_error_that_names_the_value(wrong: dict[str, Any], words: str) -> None:
    """What is wrong is said where it is written."""
    with pytest.raises(ConfigurationError) as caught:
        Call(**wrong)

    assert words in str(caught.value)


def test_listener_that_is_appended_later_hears_what_older_parts_announce() -> None:
    """Each part of an app shares its list of listeners, so that a recorder can join any time."""
    app = Celery("joined", set_as_current=False)
    joined = Resilience(app, dependencies=[Dependency("users", breaker=None)], settings=Settings())
    pipeline = joined.pipeline("users", name="user", fallbacks=[fallback.static("nobody")])
    heard: list[Event] = []

    joined.listeners.append(heard.append)
    pipeline.call(lambda: 1 / 0)

    assert [type(one) for one in heard][-1:] == [AnswerDegraded]
