"""What a pipeline remembers for worse times."""

from typing import NoReturn

import pytest

from resilience import (
    AllFallbacksFailedError,
    ConfigurationError,
    Dependency,
    Level,
    Outcome,
    PartialResponse,
    Pipeline,
    fallback,
)
from resilience.store import Answers
from resilience.testing.valkey import ValkeyProcess
from tests.unit.calling import Listening, Run, raising

USERS = Dependency("users")


def test_stale_answers_with_the_last_full_answer(run: Run, answers: Answers) -> None:
    """The same arguments get what they got last, with level, reason, source and age."""
    pipeline = Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=60)])
    run(pipeline, lambda user: ["for", user], 7)
    run(pipeline, lambda user: ["for", user], 8)

    outcome = run(pipeline, raising(OSError("gone")), 7)

    assert outcome.value == ["for", 7]
    assert (outcome.level, outcome.reason, outcome.source) == (Level.STALE, "OSError", "stale")
    assert 0 <= outcome.age < 5
    with pytest.raises(AllFallbacksFailedError):
        run(pipeline, raising(OSError("gone")), 9)


def test_stale_is_no_older_than_its_own_age(
    run: Run, answers: Answers, valkey: ValkeyProcess
) -> None:
    """What another chain keeps for longer is too old for this one, which says by how much."""
    patient, strict = (
        Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=seconds)])
        for seconds in (100, 30)
    )
    run(patient, lambda user: ["for", user], 7)
    valkey.client().pexpire(answers.key_of_call("ask", (7,), {}), 60_000)  # as 40 s later

    with pytest.raises(AllFallbacksFailedError, match=r"the answer is 4\d s old, more than 30 s"):
        run(strict, raising(OSError("gone")), 7)
    assert run(patient, raising(OSError("gone")), 7).value == ["for", 7]


def test_stale_never_remembers_a_degraded_answer(run: Run, answers: Answers) -> None:
    """Neither a fallback's answer nor one that degraded by itself is stored as good."""
    degraded = Outcome(value="made do", level=Level.REDUCED)
    chain = [fallback.stale(max_age=60), fallback.static("static")]
    pipeline = Pipeline("ask", USERS, answers, fallbacks=chain)

    run(pipeline, raising(OSError("gone")), 7)
    run(pipeline, lambda _: degraded, 7)

    assert run(pipeline, raising(OSError("gone")), 7).value == "static"


@pytest.mark.parametrize(
    ("response", "level"),
    [
        (PartialResponse(data={}, missing=["ads"], reasons={"ads": "OSError"}), Level.REDUCED),
        (
            PartialResponse(
                data={"ads": []}, degraded=["ads"], reasons={"ads": "OSError"}, level=Level.STALE
            ),
            Level.STALE,
        ),
        (
            PartialResponse(
                data={}, missing=["ads"], reasons={"ads": "OSError"}, level=Level.FAILED
            ),
            Level.FAILED,
        ),
    ],
    ids=["missing", "degraded", "failed"],
)
def test_stale_never_remembers_a_partial_response(
    run: Run, answers: Answers, response: PartialResponse, level: Level
) -> None:
    """It says itself how good it is and why, and is no full answer."""
    chain = [fallback.stale(max_age=60), fallback.static("static")]
    pipeline = Pipeline("ask", USERS, answers, fallbacks=chain)

    outcome = run(pipeline, lambda: response)

    assert outcome == Outcome(
        value=response, level=level, reason="ads: OSError", dependency="users"
    )
    assert run(pipeline, raising(OSError("gone"))).value == "static"


def test_stale_remembers_an_answer_of_nothing(run: Run, answers: Answers) -> None:
    """None is an answer like any other, not the lack of one."""
    pipeline = Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=60)])
    run(pipeline, lambda: None)

    outcome = run(pipeline, raising(OSError("gone")))

    assert (outcome.value, outcome.level) == (None, Level.STALE)


def test_stale_knows_a_call_by_the_arguments_it_was_given(run: Run, answers: Answers) -> None:
    """A function that uses its arguments up does not get another call's answer."""

    def consume(users: list[int]) -> list[int]:
        taken = []
        while users:
            taken.append(users.pop())
        return taken

    def consume_and_fail(users: list[int]) -> NoReturn:
        consume(users)
        msg = "gone"
        raise OSError(msg)

    pipeline = Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=60)])
    run(pipeline, consume, [1, 2])
    run(pipeline, consume, [3])

    assert run(pipeline, consume_and_fail, [1, 2]).value == [2, 1]
    with pytest.raises(AllFallbacksFailedError):
        run(pipeline, consume_and_fail, [])


def test_stale_refuses_arguments_that_cannot_be_remembered(run: Run, answers: Answers) -> None:
    """A call that can have no key is a bug, found at the first call and before it is sent."""
    called = Listening()
    pipeline = Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=60)])

    with pytest.raises(TypeError, match="not JSON serializable"):
        run(pipeline, called, object())

    assert not called.heard


def test_stale_says_every_time_that_a_value_cannot_be_remembered(
    run: Run, answers: Answers
) -> None:
    """A value that JSON does not know is a bug each time, not only at the first write."""
    pipeline = Pipeline("ask", USERS, answers, fallbacks=[fallback.stale(max_age=60)])

    for _ in range(2):
        with pytest.raises(TypeError, match="not JSON serializable"):
            run(pipeline, object)


def one(user: int) -> list[object]:
    """Answer a call of the dependency."""
    return ["one", user]


def another(user: int) -> NoReturn:
    """Fail another call of it."""
    raise OSError(user)


def test_stale_is_never_another_functions_answer(run: Run, answers: Answers) -> None:
    """A pipeline that bears only its dependency's name tells its functions apart."""
    pipelines = [
        Pipeline("users", USERS, answers, fallbacks=[fallback.stale(max_age=60)]) for _ in "ab"
    ]
    pipelines[0].call(one, 7)

    for pipeline in pipelines:
        with pytest.raises(AllFallbacksFailedError):
            pipeline.call(another, 7)
        assert pipeline.call(one, 7).value == ["one", 7]
    with pytest.raises(ConfigurationError, match="name=") as caught:
        run(pipelines[0], lambda user: user, 7)
    assert "no name to remember its answers under" in str(caught.value)


def test_stale_is_found_under_the_functions_own_name(answers: Answers) -> None:
    """The same function gets its own answer back, from any pipeline of the dependency."""
    up = True

    def ask(user: int) -> list[object]:
        if up:
            return one(user)
        raise OSError(user)

    ask.__qualname__ = "ask"
    chain = [fallback.stale(max_age=60)]
    Pipeline("users", USERS, answers, fallbacks=chain).call(ask, 7)
    up = False

    outcome = Pipeline("users", USERS, answers, fallbacks=chain).call(ask, 7)

    assert (outcome.value, outcome.level) == (["one", 7], Level.STALE)
