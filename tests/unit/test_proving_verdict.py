"""What a proof makes of what it has seen."""

from dataclasses import replace
from typing import Any

import pytest

from resilience import Level, Outcome, PartialResponse
from resilience.chaos.proving.plan import Planned, Run
from resilience.chaos.proving.verdict import Answer, Observed, broken, read_answer

FAULT = Planned("users", "error")
RUN = Run(call="page", faults=(FAULT,), worst=Level.STATIC)
INJECTED = {
    "record": "FaultInjected",
    "kind": "error",
    "dependency": "users",
    "call": "shop.user",
    "job": "1",
}
GOOD = Observed(
    answer=Answer(level=Level.STATIC, source="static"),
    seconds=0.4,
    limit=1.0,
    waited=5.0,
    late=0.0,
    records=(INJECTED, {"record": "AnswerDegraded"}),
    injected=frozenset({FAULT}),
    never_opened={},
    recovered=Level.FULL,
)


def sentences(run: Run = RUN, **seen: Any) -> list[str]:  # noqa: ANN401 - fields of Observed
    """Return what a run breaks that was good but for what was *seen*."""
    return broken(run, replace(GOOD, **seen), kept=["shop.mail"], silent=["audit"])


def test_good_run_breaks_nothing() -> None:
    """An answer as declared, in time, marked and announced, and full again: all holds."""
    assert sentences() == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"answer": Answer(level=Level.FAILED, source="OSError")}, "FAILED (OSError), but STATIC"),
        ({"answer": None}, "no answer came within 5 s, and its limit is 1 s"),
        ({"answer": None, "limit": None}, "nothing limits it; give the dependency a timeout"),
        ({"seconds": 1.2}, "took 1.200 s, but its limit is 1 s"),
        ({"answer": Answer(level=Level.STATIC, unmarked=("reason",))}, "does not say: reason"),
        ({"records": (INJECTED,)}, "no event announces it"),
        ({"answer": Answer(level=Level.FULL)}, "claims to be FULL, although the call shop.user"),
        ({"injected": frozenset()}, "users error was planned and never struck"),
        ({"never_opened": {"users": 40}}, "circuit of users did not open after 40 timeouts"),
        ({"effects": 2}, "had its effect 2 times"),
        ({"lost": ("shop.mail 17",)}, "the job shop.mail 17 is lost"),
        ({"recovered": Level.STATIC, "recovery_seconds": 10.0}, "10 s after the fault had ended"),
        ({"recovered": None}, "there was still no answer"),
    ],
)
def test_each_broken_promise_is_named(seen: dict[str, Any], words: str) -> None:
    """A sentence names the call, the fault, the value and, behind a semicolon, the mend."""
    [sentence] = sentences(**seen)

    assert sentence.startswith("page under users error: ")
    assert words in sentence
    assert ";" in sentence or "?" in sentence


def test_late_answer_is_excused_by_the_delay_of_the_machine() -> None:
    """A pause of the proof's own process that was 0.2 s too long excuses as much."""
    assert sentences(seconds=1.25, late=0.2) == []


@pytest.mark.parametrize("change", [{"call": "shop.mail"}, {"dependency": "audit"}])
def test_full_answer_is_right_if_nothing_of_it_failed(change: dict[str, str]) -> None:
    """A job that the ledger keeps, or a dependency that is silent, changes no answer."""
    records = ({**INJECTED, **change},)

    assert sentences(answer=Answer(level=Level.FULL), records=records) == []


def test_jobs_that_ran_twice_under_one_key_are_named() -> None:
    """A body that ran to its end twice under one key is done twice; a recorded result is not."""
    ended = {"record": "succeeded", "key": "order:1", "id": "1"}
    announced = {"record": "AnswerDegraded"}

    assert sentences(records=(INJECTED, ended, ended, announced)) == []
    [sentence] = sentences(records=(INJECTED, ended, INJECTED, ended, announced))
    assert "order:1 ran to their end 2 times" in sentence


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"plain": 1}, Answer(level=Level.FULL)),
        (
            Outcome(value=1, level=Level.STALE, reason="E", source="stale", dependency="users"),
            Answer(level=Level.STALE, source="stale"),
        ),
        (
            Outcome(value=1, level=Level.REDUCED),
            Answer(level=Level.REDUCED, unmarked=("reason", "dependency")),
        ),
        (
            PartialResponse(
                data={},
                missing=["b"],
                degraded=["a"],
                reasons={"a": "E", "b": "E"},
                sources={"a": "stale"},
            ),
            Answer(level=Level.REDUCED, source="a: stale, b: missing"),
        ),
        (
            PartialResponse(data={}, missing=["b"]),
            Answer(level=Level.REDUCED, source="b: missing", unmarked=("reason of b",)),
        ),
        (
            PartialResponse(data={}, level=Level.REDUCED).to_json(),
            Answer(level=Level.REDUCED, unmarked=("which part is missing or degraded",)),
        ),
    ],
)
def test_answer_is_read_for_what_it_says_of_itself(value: object, answer: Answer) -> None:
    """Level, source, and what is lacking: of answers of the library, their JSON, and others."""
    assert read_answer(value) == answer
