"""Fire-and-forget jobs with a real worker: done or a dead letter, whatever fails meanwhile."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery.exceptions import WorkerLostError
from sqlalchemy import create_engine, text

from resilience.errors import LedgerUnavailableError
from resilience.ledger import Ledger, State
from resilience.tasks.envelope import JOB_HEADER
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew

SECONDS = 120.0
REFUSALS = 12
"""After so many refusals in a row, all three processes know that the circuit is open."""
APP_PATH = "tests.integration.apps.mail"


class Post:
    """The servers and the app, and short forms of what tests do with them."""

    def __init__(self, mail: ModuleType, broker: Any, path: Path) -> None:  # noqa: ANN401
        self.mail = mail
        self.broker = broker
        self.path = path
        self.ledger: Ledger = mail.app.resilience.ledger
        self.desk: redis.Redis = mail.desk()

    def fire(self, task: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Publish."""
        return self.mail.app.tasks[task].apply_async(args, **options)

    def await_done(self, key: str) -> Any:  # noqa: ANN401 - any JSON
        """Wait until the job with this *key* has run to its end; return what it said."""
        said = wait_until(lambda: self.desk.lrange(key, 0, -1), SECONDS, f"{key} is done")
        return json.loads(said[0])  # type: ignore[index]

    def runs(self, key: str) -> int:
        """Return how often the job with this *key* began."""
        return int(self.desk.llen(f"{key}:ran"))  # type: ignore[arg-type]

    def events(self, name: str, job: str) -> list[dict[str, Any]]:
        """Return the events called *name* about *job*."""
        said = [json.loads(line) for line in self.desk.lrange("events", 0, -1)]  # type: ignore[union-attr]
        return [one for one in said if (one["name"], one.get("id")) == (name, job)]

    def known(self, *states: State) -> int:
        """Return how many jobs the ledger knows, in one of these *states*; none: in any."""
        return sum(one.jobs for one in self.ledger.counts() if not states or one.state in states)

    def letter(self, job: str) -> Any:  # noqa: ANN401 - a Letter
        """Wait until *job* is a dead letter and return it."""
        wait_until(lambda: self.events("JobBuried", job), SECONDS, f"{job} is a dead letter")
        return self.ledger.letters.show(job)

    def await_refusals(self) -> None:
        """Wait until every process of the worker has heard that the circuit of the bank is open."""
        refused = 0
        while refused < REFUSALS:
            refused = 0 if self._booked() else refused + 1

    def _booked(self) -> bool:
        key = new_key()
        job = self.fire("book", key).id
        wait_until(lambda: self.runs(key) or self.events("JobParked", job), SECONDS, "it ended")
        return bool(self.runs(key))

    def await_empty(self) -> None:
        """Wait until the ledger has forgotten all jobs but the dead."""
        wait_until(
            lambda: self.known() == self.known(State.DEAD), SECONDS, "the ledger has forgotten"
        )


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """Servers, a worker of the app in apps/mail.py, and the app in this process."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        store, desk = (stack.enter_context(running_valkey(tmp_path_factory)) for _ in range(2))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "BROKER_URL": broker.url,
            "STORE_URL": store.url,
            "DESK_URL": desk.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        mail = imported_anew(patch, APP_PATH)
        mail.app.resilience.ledger.upgrade()
        stack.enter_context(run_worker(APP_PATH, queues=mail.QUEUES, concurrency=3, env=env))
        post = Post(mail, broker, path)
        yield post
        post.desk.close()
        mail.app.resilience.store.client.close()
        post.ledger.close()
        mail.app.close()


def new_key() -> str:
    """Return a name that nobody used yet."""
    return uuid4().hex


def test_failed_job_runs_again_until_it_is_done(post: Post) -> None:
    """Three failures, then done; each was announced with its number, and the ledger forgets it."""
    key = new_key()

    job = post.fire("send", key, 3).id

    headers = post.await_done(key)["headers"]
    assert post.runs(key) == 4
    assert [one["attempts"] for one in post.events("JobParked", job)] == [1, 2, 3]
    assert headers["resilience-job"]["attempts"] == 3
    post.await_empty()


def test_stamps_survive_a_failure(post: Post) -> None:
    """A job that Celery's canvas has stamped runs again, with its stamps."""
    key = new_key()

    post.fire("send", key, 1, stamped_headers=["tenant"], tenant="shop")

    assert post.await_done(key)["stamps"] == {"tenant": "shop"}
    post.await_empty()


def test_job_that_fails_too_often_is_a_dead_letter_with_all_its_errors(post: Post) -> None:
    """Four calls in total, as declared; arguments and every error are kept."""
    key = new_key()

    letter = post.letter(post.fire("send", key, 99).id)

    assert post.runs(key) == 4
    assert letter.reason == "exhausted"
    assert [error["text"] for error in letter.errors] == [f"failure {n}" for n in (1, 2, 3, 4)]
    assert letter.message["args"][:2] == [key, 99]


@pytest.mark.parametrize(("kind", "reason"), [("bug", "bug"), ("forbidden", "dead_on")])
def test_job_that_no_other_call_makes_better_is_not_called_again(
    post: Post, kind: str, reason: str
) -> None:
    """A bug, and what the policy names, end at once among the dead letters."""
    key = new_key()

    letter = post.letter(post.fire("misuse", key, kind).id)

    assert (post.runs(key), letter.reason) == (1, reason)


FORGED = {
    "a float that is none": {JOB_HEADER: {"attempts": 1e308}},
    "infinity": {JOB_HEADER: {"attempts": float("inf")}},
    "more than the ledger holds": {JOB_HEADER: {"attempts": 2**63}},
    "400 digits": {JOB_HEADER: {"attempts": 10**400}},
    "born in no time": {JOB_HEADER: {"born": float("nan")}},
    "begun": {"entered": True, "resilience_call": True, "resilience_before_start": True},
    "marked": {"resilience_marks": {"entered": 1.0, "began __call__": True}},
    "over": {"resilience_over": True, "resilience_session": {}, "resilience_refused": {}},
}


def test_forged_header_neither_keeps_a_job_running_nor_from_its_ledger(post: Post) -> None:
    """What a stranger wrote counts as nothing: the job fails as often as declared, and is kept."""
    jobs = {
        (forged, key := new_key()): post.fire("send", key, 99, headers=headers).id
        for forged, headers in FORGED.items()
    }
    for (forged, key), job in jobs.items():
        letter = post.letter(job)
        assert (forged, post.runs(key), letter.reason) == (forged, 4, "exhausted")


def test_job_that_fails_in_a_way_nobody_foresaw_is_a_dead_letter(post: Post) -> None:
    """It would fail so again and again; here the retry policy has a mistake."""
    key = new_key()

    letter = post.letter(post.fire("broken", key).id)
    kept = post.letter(post.fire("broken", new_key(), countdown=0.05).id)  # the ledger knows it

    assert kept.reason == "bug"
    assert letter.reason == "bug"
    assert post.runs(key) <= 1  # an open circuit may refuse it, which comes to the same
    assert letter.errors[-1]["text"] == "the policy is broken"
    assert letter.message["args"] == [key]


def test_refusal_spends_no_attempt(post: Post) -> None:
    """Refused seven times with four attempts to spend: it is done all the same."""
    key = new_key()

    job = post.fire("misuse", key, "refused").id

    post.await_done(key)
    assert {one["attempts"] for one in post.events("JobParked", job)} == {0}


def test_jobs_wait_while_the_circuit_is_open_and_go_when_it_closes(post: Post) -> None:
    """No call is made meanwhile, no attempt is spent, and all are done afterwards."""
    keys = [new_key() for _ in range(20)]
    breaker = post.mail.app.resilience.breaker("bank")
    breaker.force_open(seconds=60, actor="test", reason="maintenance")
    post.await_refusals()
    jobs = [post.fire("book", key).id for key in keys]
    wait_until(lambda: all(post.events("JobParked", job) for job in jobs), SECONDS, "all wait")
    assert [post.runs(key) for key in keys] == [0] * 20

    breaker.reset(actor="test", reason="done")

    for key in keys:
        assert post.await_done(key) == "done"
        assert post.runs(key) == 1


def test_broker_that_is_away_loses_nothing(post: Post) -> None:
    """What is fired meanwhile waits in the outbox and runs when the broker is back, unchanged."""
    keys = [new_key() for _ in range(5)]
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    post.await_empty()
    post.broker.stop()
    try:
        jobs = [
            post.fire("send", key, headers={"x-trace": key}, expires=expires, budget=60.0).id
            for key in keys
        ]
        # The relay takes a job from the outbox while it tries to publish it.
        assert post.known(State.OUTBOX, State.DISPATCHED) == 5
        assert all(post.events("JobKept", job) for job in jobs)
    finally:
        post.broker.start()

    for key in keys:
        said = post.await_done(key)
        assert said["headers"]["x-trace"] == key
        assert said["headers"]["resilience-budget"]["total"] == 60.0
        assert datetime.fromisoformat(said["expires"]) == expires
    post.await_empty()


def test_job_of_a_killed_process_runs_again(post: Post) -> None:
    """SIGKILL in the middle of it: the job is kept, and done by another process."""
    key = new_key()

    post.fire("perish", key, 1)

    assert post.await_done(key) == "done"
    assert post.runs(key) == 2


def test_job_that_kills_three_processes_is_poison(post: Post) -> None:
    """It is not given a fourth."""
    key = new_key()

    letter = post.letter(post.fire("perish", key, 99).id)

    assert (letter.reason, post.runs(key)) == ("poison", 3)
    assert {error["type"].rpartition(".")[2] for error in letter.errors} == {
        WorkerLostError.__name__
    }


def test_job_over_the_hard_limit_runs_again(post: Post) -> None:
    """The process is killed, the job is not."""
    key = new_key()

    post.fire("overrun", key)

    assert post.await_done(key) == "done"


def test_countdown_is_kept_in_the_ledger(post: Post) -> None:
    """A job that is due later is a row, not a message in a worker's memory."""
    key = new_key()

    post.fire("send", key, countdown=3600)

    assert post.known(State.SCHEDULED) == 1
    assert post.broker.kept("mail") == 0
    with closing(sqlite3.connect(post.path)) as database:
        database.execute("UPDATE resilience_jobs SET due = 0 WHERE state = 'scheduled'")
        database.commit()
    post.await_done(key)
    post.await_empty()


def test_job_exists_if_and_only_if_the_transaction_is_committed(post: Post) -> None:
    """`publish_with`: rolled back it never was; committed it runs."""
    engine = create_engine(f"sqlite:///{post.path}")
    rolled_back, committed = new_key(), new_key()
    send = post.mail.app.tasks["send"]
    with engine.connect() as connection:
        send.publish_with(connection, (rolled_back,))
        connection.rollback()
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        send.publish_with(connection, (committed,))
    engine.dispose()

    post.await_done(committed)
    assert post.runs(rolled_back) == 0
    post.await_empty()


def test_ledger_that_is_locked_leaves_the_job_with_the_broker(post: Post) -> None:
    """A failed job that cannot be kept goes back to its queue, and is done when it can."""
    key = new_key()
    with closing(sqlite3.connect(post.path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        job = post.fire("send", key, 1).id
        wait_until(lambda: post.events("JobUnkept", job), SECONDS, "the ledger is missed")
        database.execute("ROLLBACK")

    post.await_done(key)
    assert post.runs(key) >= 2


def test_fire_says_so_if_neither_takes_the_job(post: Post) -> None:
    """Broker away and ledger locked: the caller is told, and the job is not accepted."""
    post.broker.stop()
    try:
        with closing(sqlite3.connect(post.path, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LedgerUnavailableError):
                post.fire("send", new_key())
            database.execute("ROLLBACK")
    finally:
        post.broker.start()


def test_concurrent_duplicates_run_once_and_get_one_result(post: Post) -> None:
    """The second waits for the first, a later one is told what came of it."""
    key, order = new_key(), new_key()
    first = post.fire("charge", order, key)
    assert post.desk.blpop([f"{key}:started"], timeout=int(SECONDS))
    second = post.fire("charge", order, key)
    post.desk.rpush(f"{key}:go", "go")

    results = [one.get(timeout=SECONDS) for one in (first, second)]
    results.append(post.fire("charge", order, key).get(timeout=SECONDS))

    assert results == [f"{order} charged, run 1"] * 3
    assert post.runs(key) == 1


def test_failed_run_leaves_its_key_to_the_next(post: Post) -> None:
    """A failure is no result: whoever comes next runs."""
    key, order = new_key(), new_key()
    post.desk.rpush(f"{key}:go", "go", "go")
    with pytest.raises(ConnectionError):
        post.mail.app.tasks["charge"].apply_async((order, key), {"fails": True}).get(SECONDS)

    again = post.fire("charge", order, key).get(timeout=SECONDS)

    assert again == f"{order} charged, run 2"


def test_key_of_a_killed_process_is_free_again_within_its_lease(post: Post) -> None:
    """SIGKILL while the key is held: the job comes back, runs, and later copies do not."""
    key, order = new_key(), new_key()
    post.fire("confirm", order, key)
    wait_until(lambda: post.runs(key) == 2, SECONDS, "the job ran again")

    job = post.fire("confirm", order, key).id

    wait_until(lambda: post.broker.kept("mail") == 0, SECONDS, "the copy was taken")
    post.await_empty()
    assert post.runs(key) == 2
    assert not post.events("JobBuried", job)
