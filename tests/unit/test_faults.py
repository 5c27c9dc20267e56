"""Faults that are injected around what a pipeline calls."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest
from celery import Celery
from pydantic import ValidationError

from resilience import (
    AllFallbacksFailedError,
    AttemptTimeoutError,
    ConfigurationError,
    Dependency,
    Pipeline,
    Resilience,
    Settings,
    fallback,
)
from resilience.clock import SystemClock
from resilience.events import Event, FaultInjected
from resilience.faults import Fault, Injector, fault_of
from resilience.faults.injector import DICE_MAX
from resilience.store import Answers
from tests.unit.calling import Listening, Run

monotonic = SystemClock.monotonic
USERS = Dependency("users", timeout=0.3)
DRAWS = 400


class Numbers:
    """A call that counts itself."""

    def __init__(self) -> None:
        """Not called yet."""
        self.calls = 0

    def __call__(self, number: int) -> int:
        """Return *number*."""
        self.calls += 1
        return number


class Ordered:
    """Faults in force, which a test changes."""

    def __init__(self, *faults: Fault) -> None:
        """Put *faults* in force."""
        self.faults = {f"fault-{number}": one for number, one in enumerate(faults)}

    def __call__(self, dependency: str) -> Mapping[str, Fault]:
        """Return those of *dependency*."""
        return {name: one for name, one in self.faults.items() if one.dependency == dependency}


def faulty(
    answers: Answers, *faults: Fault, fallbacks: bool = True, worker: str = "w"
) -> tuple[Pipeline, Listening]:
    """Return a pipeline with *faults*, and what is announced."""
    listening = Listening()
    steps = [fallback.static(0)] if fallbacks else []
    pipeline = Pipeline("add", USERS, answers, fallbacks=steps, listeners=[listening])
    Injector(Ordered(*faults), [listening], worker=worker).wrap(pipeline)
    return pipeline, listening


@pytest.mark.parametrize(
    ("kind", "reason"), [("error", "ConnectionError"), ("refuse", "ConnectionRefusedError")]
)
def test_fault_takes_the_place_of_the_call(
    run: Run, no_answers: Answers, kind: str, reason: str
) -> None:
    """The call is not made, the fallback answers, and the outcome names the fault."""
    pipeline, listening = faulty(no_answers, Fault(dependency="users", kind=kind))
    called = Numbers()

    outcome = run(pipeline, called, 7)

    assert (outcome.value, outcome.reason, called.calls) == (0, reason, 0)
    assert outcome.fault == "fault-0"
    assert outcome.to_json()["_meta"]["fault"] == "fault-0"
    injected = [event for event in listening.heard if isinstance(event, FaultInjected)]
    assert injected == [FaultInjected(fault="fault-0", kind=kind, dependency="users", call="add")]


def test_fault_without_fallbacks_raises_an_error_that_names_it(
    run: Run, no_answers: Answers
) -> None:
    """Logs and dead letters can tell an injected error from a real one."""
    fault = Fault(dependency="users", kind="error", error="builtins.ZeroDivisionError")
    pipeline, _ = faulty(no_answers, fault, fallbacks=False)

    with pytest.raises(ZeroDivisionError, match="injected by the fault fault-0") as caught:
        run(pipeline, Numbers(), 7)

    assert fault_of(caught.value) == "fault-0"


def test_lost_answer_is_one_of_a_call_that_was_made(run: Run, no_answers: Answers) -> None:
    """`execute-then-timeout`: the dependency has done the work, and the caller does not know."""
    pipeline, _ = faulty(no_answers, Fault(dependency="users", kind="execute-then-timeout"))
    called = Numbers()

    outcome = run(pipeline, called, 7)

    assert (outcome.value, outcome.reason, called.calls) == (0, "TimeoutError", 1)


def test_latency_delays_a_full_answer_and_marks_it(run: Run, no_answers: Answers) -> None:
    """A slow answer is as good as any, and says what made it slow."""
    fault = Fault(dependency="users", kind="latency", delay_seconds=0.1)
    pipeline, _ = faulty(no_answers, fault)

    began = monotonic()
    outcome = run(pipeline, Numbers(), 7)

    assert monotonic() - began >= 0.1
    assert (outcome.value, outcome.level, outcome.fault) == (7, 0, "fault-0")


def test_hanging_call_is_cut_by_its_timeout(run: Run, no_answers: Answers) -> None:
    """The timeout around the call holds for the fault, too."""
    pipeline, _ = faulty(no_answers, Fault(dependency="users", kind="hang"))

    outcome = run(pipeline, Numbers(), 7)

    assert (outcome.value, outcome.reason) == (0, AttemptTimeoutError.__name__)


@pytest.mark.timeout(30)
def test_hanging_call_ends_with_its_fault(run: Run, no_answers: Answers) -> None:
    """Whoever clears a fault need not wait for the calls that it keeps."""
    ordered = Ordered(Fault(dependency="users", kind="hang"))
    pipeline = Pipeline("add", Dependency("users", timeout=None), no_answers)

    class Clearing(Listening):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            ordered.faults.clear()

    Injector(ordered, [Clearing()]).wrap(pipeline)

    with pytest.raises(ConnectionResetError):
        run(pipeline, Numbers(), 7)


def test_rate_is_a_share_of_the_calls_and_a_seed_repeats_it(run: Run, no_answers: Answers) -> None:
    """Two processes with the same seed inject into the same calls."""
    fault = Fault(dependency="users", kind="error", rate=0.3, seed=7)

    def drawn() -> list[int]:
        pipeline, _ = faulty(no_answers, fault)
        return [run(pipeline, Numbers(), 1).value for _ in range(DRAWS)]

    first = drawn()

    assert drawn() == first
    assert 0.2 * DRAWS < first.count(0) < 0.4 * DRAWS


def test_share_of_the_workers_is_kept_in_each_worker(run: Run, no_answers: Answers) -> None:
    """A fault for a share of the workers hits all calls of some, and none of the others."""
    fault = Fault(dependency="users", kind="error", share=0.5)
    hit = []
    for number in range(40):
        pipeline, _ = faulty(no_answers, fault, worker=f"worker-{number}")
        values = {run(pipeline, Numbers(), 1).value for _ in range(2)}
        assert len(values) == 1
        hit.append(values == {0})

    assert 8 < hit.count(True) < 32


def test_faults_of_another_dependency_and_bugs_are_left_alone(
    run: Run, no_answers: Answers
) -> None:
    """A wrong call is still raised as a bug: the wrapper hides no signature."""
    pipeline, _ = faulty(no_answers, Fault(dependency="mail", kind="error"))

    assert run(pipeline, Numbers(), 7).fault is None
    with pytest.raises((TypeError, AllFallbacksFailedError)) as caught:
        pipeline.call(Numbers(), 1, 2)
    assert caught.type is TypeError


@pytest.mark.parametrize("error", ["urllib.error.HTTPError", "subprocess.CalledProcessError"])
def test_exception_that_needs_other_arguments_can_be_injected(error: str) -> None:
    """Its constructor wants what only a real answer has."""
    fault = Fault(dependency="users", kind="error", error=error)
    fault.check_error()

    assert type(fault.exception("text")).__name__ == error.rpartition(".")[2]


def test_error_that_a_process_has_not_imported_becomes_the_default() -> None:
    """A name from the store imports nothing."""
    fault = Fault(dependency="users", kind="error", error="poplib.error_proto")

    assert isinstance(fault.exception("text"), ConnectionError)
    assert "poplib" not in sys.modules


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "eror"}, "kind"),
        ({"kind": "error", "rate": 0}, "rate"),
        ({"kind": "error", "rate": 1.1}, "rate"),
        ({"kind": "error", "rate": float("nan")}, "rate"),
        ({"kind": "error", "share": 0}, "share"),
        ({"kind": "latency"}, "delay_seconds"),
        ({"kind": "latency", "delay_seconds": 3601}, "delay_seconds"),
        ({"kind": "error", "delay_seconds": 1}, "delay_seconds"),
        ({"kind": "error", "error": "no class"}, "error"),
    ],
)
def test_wrong_fault_is_refused_where_it_is_declared(
    options: dict[str, object], named: str
) -> None:
    """The error names the attribute."""
    with pytest.raises(ValidationError, match=named):
        Fault.model_validate({"dependency": "users", **options})


@pytest.mark.parametrize("error", ["nowhere.Error", "builtins.print", "builtins.SystemExit"])
def test_error_that_is_none_is_found_when_it_is_ordered(error: str) -> None:
    """The message says how an exception is written."""
    with pytest.raises(ValueError, match=r"module\.Class"):
        Fault(dependency="users", kind="error", error=error).check_error()


def test_process_without_chaos_has_nothing_in_the_way_of_a_call() -> None:
    """Neither its pipelines nor its pulse know of faults; with chaos, both do."""

    def adopted(*, chaos: bool) -> Resilience:
        app: Celery[Any] = Celery("faults", set_as_current=False)
        return Resilience(app, dependencies=[USERS], settings=Settings(chaos=chaos), listeners=())

    plain, faulty = (adopted(chaos=one).pipeline("users") for one in (False, True))

    assert "call" not in vars(plain)
    assert "call_async" not in vars(plain)
    assert {"call", "call_async"} <= vars(faulty).keys()


def test_setting_holds_faults_of_single_processes() -> None:
    """From the environment, checked as any other: a dependency that is unknown is named."""
    environment = {
        "RESILIENCE_CHAOS": "1",
        "RESILIENCE_FAULTS": '[{"dependency": "users", "kind": "refuse"}]',
    }
    settings = Settings.from_environment(environment)
    app: Celery[Any] = Celery("faults", set_as_current=False)
    adopted = Resilience(app, dependencies=[USERS], settings=settings, listeners=())

    with pytest.raises(ConnectionRefusedError):
        adopted.pipeline("users").call(Numbers(), 7)

    wrong = Settings(chaos=True, faults=({"dependency": "usres", "kind": "refuse"},))
    other: Celery[Any] = Celery("faults", set_as_current=False)
    with pytest.raises(ConfigurationError, match="Did you mean 'users'"):
        Resilience(other, dependencies=[USERS], settings=wrong, listeners=()).pipeline("users")


@pytest.mark.parametrize("text", ["[{", '{"kind": 1}', "[1]"])
def test_setting_that_is_no_list_of_faults_is_refused(text: str) -> None:
    """The error names the setting."""
    with pytest.raises(ValidationError, match="faults"):
        Settings.from_environment({"RESILIENCE_FAULTS": text})


def test_injector_forgets_the_draws_of_faults_of_long_ago() -> None:
    """A process that lives for years keeps the draws of a bounded number of faults."""
    injector = Injector(lambda _: {}, [])
    fault = Fault(dependency="users", kind="error")
    for number in range(2 * DICE_MAX):
        injector.drawn(f"fault-{number}", fault)

    assert list(injector._dice) == [f"fault-{n}" for n in range(DICE_MAX, 2 * DICE_MAX)]  # noqa: SLF001
