"""The verdict of a game day: what became of each job, and which promise was broken."""

import pytest

from resilience.chaos.gameday.checker import check
from resilience.chaos.gameday.load import Request
from resilience.chaos.gameday.plan import Promises
from resilience.chaos.gameday.verdict import broken, percentile
from resilience.chaos.proving.records import Record
from resilience.chaos.proving.verdict import Answer
from resilience.levels import Level

NO_JOBS = check([], [])


def history(*names: str, job: str = "j") -> list[Record]:
    """Return records of a job."""
    return [{"record": one, "id": job, "job": job, "task": "shop.a"} for one in names]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("published accepted succeeded", "ok"),
        ("published accepted AnswerDegraded succeeded", "degraded"),
        ("published accepted failed", "failed"),
        ("published accepted revoked", "failed"),
        ("published accepted BudgetExceeded", "failed"),
        ("published accepted", "lost"),
        ("published", "refused"),
        ("published JobKept", "lost"),
        ("published accepted JobParked failed", "lost"),
        ("published accepted JobParked failed accepted succeeded", "ok"),
        ("succeeded", "unexpected"),
    ],
)
def test_job_is_of_the_class_that_its_history_says(names: str, kind: str) -> None:
    """Each job is of one class; what was acknowledged and has no end is lost."""
    jobs = check(history(*names.split()), [])

    found = {name for name in jobs.__dataclass_fields__ if getattr(jobs, name)}
    assert found == {kind}
    assert getattr(jobs, kind) == {"j": "shop.a"}


def test_job_that_the_ledger_still_has_is_kept() -> None:
    """It waits there for its retry; an attempt that failed is no end of it."""
    jobs = check(history("published", "accepted", "JobParked", "failed"), ["j"])

    assert jobs.kept == {"j": "shop.a"}
    assert not jobs.lost


def test_job_whose_body_ran_to_its_end_twice_is_duplicated() -> None:
    """It is ok as well; one that ran once is not."""
    jobs = check(
        history("published", "accepted", "succeeded", "succeeded")
        + history("published", "accepted", "succeeded", job="k"),
        [],
    )

    assert jobs.duplicated == {"j": "shop.a"}
    assert set(jobs.ok) == {"j", "k"}


def request(
    level: Level = Level.FULL,
    *,
    seconds: float = 0.1,
    unmarked: tuple[str, ...] = (),
    job: str | None = None,
) -> Request:
    """Return one that was answered."""
    answer = Answer(level=level, source="static", unmarked=unmarked)
    return Request(name="page #7", at=1.5, seconds=seconds, answer=answer, job=job)


def only(promises: Promises, *requests: Request, recovery: float | None = 1.0) -> str:
    """Return the one sentence about the promise that *requests* break."""
    [sentence] = broken(promises, NO_JOBS, requests, recovery)
    return sentence


def test_broken_promise_names_the_job() -> None:
    """A lost job is named by task and id, and at most five of many."""
    records = [one for job in "abcdefg" for one in history("published", "accepted", job=job)]

    [sentence] = broken(Promises(), check(records, []), [], 1.0)

    assert sentence.startswith("lost ≤ 0: there were 7: shop.a a; shop.a b; ")
    assert sentence.endswith("shop.a e; and 2 more")


def test_promise_with_room_is_kept() -> None:
    """So many may be lost as the plan says, and a promise that nobody gave is not broken."""
    jobs = check(history("published", "accepted"), [])

    assert not broken(Promises(lost=1), jobs, [request(Level.FAILED, seconds=9)], 1.0)


def test_late_answer_breaks_the_promise_of_p99_and_is_named() -> None:
    """The slowest requests are named with their seconds."""
    sentence = only(Promises(p99=1.0), request(), request(seconds=2.0, job="j"))

    assert sentence.startswith("p99 ≤ 1 s: it was 2.00 s; the slowest: page #7 at 1.5 s (job j): 2")


def test_answer_that_failed_breaks_the_promise_that_none_does() -> None:
    """So does one that never came."""
    never = Request(name="never #1", at=0.0)

    sentence = only(Promises(failed=1), request(Level.FAILED), never)

    assert sentence == (
        "failed ≤ 1: there were 2: page #7 at 1.5 s: static; never #1 at 0.0 s: no answer"
    )


def test_level_that_is_worse_than_promised_is_named() -> None:
    """The worst level that is promised is kept."""
    assert not broken(Promises(level="static"), NO_JOBS, [request(Level.STATIC)], 1.0)
    assert only(Promises(level="stale"), request(Level.STATIC)) == (
        "level no worse than stale: 1 answers were worse: page #7 at 1.5 s: STATIC (static)"
    )


def test_degraded_answer_that_does_not_say_so_is_named() -> None:
    """Neither may it lack its reason, nor claim to be FULL although a fallback answered."""
    silent = request(Level.STATIC, unmarked=("reason",))
    records = history("published", "accepted", "AnswerDegraded", "succeeded")
    claims = request(job="j")

    assert "page #7 at 1.5 s does not say reason" in only(Promises(), silent)
    [sentence] = broken(Promises(), check(records, []), [claims], 1.0)
    assert "(job j) does not say that a fallback answered" in sentence


@pytest.mark.parametrize(
    ("recovery", "took"),
    [(None, "the steady state did not hold by then"), (11.0, "it took 11.0 s")],
)
def test_late_recovery_breaks_its_promise(recovery: float | None, took: str) -> None:
    """Also if it never came."""
    assert only(Promises(), recovery=recovery) == f"recovered within 10 s: {took}"


def test_percentile_is_the_least_value_that_the_share_does_not_exceed() -> None:
    """Of nothing it is 0."""
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([], 0.99) == 0.0
