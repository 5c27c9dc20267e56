"""What a ledger costs its users once it has grown: no more than when it was small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from resilience.ledger import Ledger, State, Which
from resilience.ledger.engines import read_url
from resilience.testing.postgres import PostgresProcess
from tests.conformance.ledger_jobs import buried, by_hand, job

WEEK = 7 * 86_400.0
LIMIT = 10
FILL = [
    "CREATE TABLE numbers (n INTEGER)",
    """INSERT INTO numbers WITH RECURSIVE counted(n) AS
    (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < :rows) SELECT n FROM counted""",
    """INSERT INTO resilience_jobs (id, state, dependency, task, queue, message, errors, attempts,
    dispatches, created, born, died, fingerprint)
    SELECT 'dead ' || n, 'dead', 'mail', 'shop.mail.send', 'mail.retry', :message, '', 1, 1, 0, 0,
    4e9 + n, 'common' FROM numbers""",
    """INSERT INTO resilience_jobs (id, state, dependency, task, queue, message, errors, attempts,
    dispatches, created, born, due)
    SELECT 'waits ' || n, 'scheduled', 'mail', 'shop.mail.send', 'mail.retry', :message, '', 1, 1,
    0, 0, 4e9 + n FROM numbers""",
    """INSERT INTO resilience_audit (at, actor, reason, action, job, task, replay)
    SELECT 4e9 + n, 'ann', :message, 'replay', 'a' || n, 'shop.mail.send', 'b' || n
    FROM numbers""",
    """INSERT INTO resilience_claims (key, owner, until)
    SELECT 'key ' || n, :message, 4e9 + n FROM numbers""",
    "INSERT INTO resilience_claims (key, owner, until) VALUES ('over', 'o', 1)",
]
"""Letters of one common task, jobs that wait, audit, claims, so young that they stay; one claim."""
BY = {"actor": "ann", "reason": "mail is back"}


def found(*expected: str, **filters: str) -> Callable[[Ledger], None]:
    """Return a look for letters that finds those."""

    def look(ledger: Ledger) -> None:
        letters = ledger.letters.find(Which(**filters), limit=LIMIT)
        assert [letter.id for letter in letters] == list(expected)

    return look


def counted(ledger: Ledger) -> None:
    """Count up to a limit."""
    counts = {(one.state, one.dependency): one.amount for one in ledger.counts(limit=LIMIT)}
    assert counts[State.DEAD, "mail"] == counts[State.SCHEDULED, "mail"] == f"{LIMIT}+"
    assert counts[State.DEAD, "sms"] == "1"


def replayed(ledger: Ledger) -> None:
    """Replay the one letter of a task."""
    done = ledger.letters.replay(Which(task="shop.rare"), **BY, new_id=lambda: "new", limit=LIMIT)
    assert done == {"rare": "new"}
    [entry] = ledger.letters.audit(job="new")
    assert entry.job == "rare"


def purged(ledger: Ledger) -> None:
    """Purge what is old."""
    done = ledger.letters.purge(older_than_seconds=WEEK)
    assert (done.letters, done.audit, done.claims) == (1, 0, 1)


STEPS: dict[str, Callable[[Ledger], None]] = {
    "counts": counted,
    "letters of a task": found("rare", task="shop.rare"),
    "letters of a dependency": found("lone", dependency="sms"),
    "letters of both": found("rare", task="shop.rare", dependency="mail"),
    "letters of a cause": found(fingerprint="none"),
    "letters of no task": found(task="none"),
    "purge": purged,
    "replay": replayed,
    "claim": lambda ledger: ledger.claims.claim("key 1", owner="o", lease_seconds=60.0) and None,
}


def grown(url: str, rows: int) -> Ledger:
    """Return a ledger with so many of each, and a few rare ones among them."""
    ledger = Ledger(url, timeout_seconds=5.0)
    ledger.upgrade()
    by_hand(url, *FILL, rows=rows, message=500 * "x")
    buried(ledger, "old", "rare", task="shop.rare")
    buried(ledger, "lone", dependency="sms")
    old = "UPDATE resilience_jobs SET task = 'shop.old', died = 1 WHERE id = 'old'"
    by_hand(url, old)
    return ledger


def test_on_sqlite_it_takes_as_many_steps_with_much_as_with_little(tmp_path: Path) -> None:
    """A count, a look for letters, a replay and a purge never read what they are not about."""
    taken: dict[str, list[int]] = {name: [] for name in STEPS}
    for rows in (50, 5000):
        ledger = grown(f"sqlite:///{tmp_path}/{rows}", rows)
        ticks: list[None] = []

        def count(connection: Any, *_: object, ticks: list[None] = ticks) -> None:  # noqa: ANN401 - sqlite3's
            connection.set_progress_handler(lambda: ticks.append(None), 1)

        event.listen(ledger._database._engine(), "checkout", count)  # noqa: SLF001
        for name, step in STEPS.items():
            ticks.clear()
            step(ledger)
            taken[name].append(len(ticks))
        ledger.close()

    assert [name for name, (few, many) in taken.items() if not 0 < many <= few * 1.2] == []


def test_on_postgresql_no_statement_reads_what_it_is_not_about(postgres: PostgresProcess) -> None:
    """None reads a table from its start, nor a tenth of its pages."""
    url = postgres.emptied()
    ledger = grown(url, 5000)
    by_hand(url, "ANALYZE")
    sent: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: Any, *___: object) -> None:  # noqa: ANN401 - any
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            sent.append((statement, values[0] if isinstance(values, list) else values))

    event.listen(ledger._database._engine(), "before_cursor_execute", note)  # noqa: SLF001
    for step in STEPS.values():
        step(ledger)
    ledger.close()

    assert len(sent) > len(STEPS)
    engine = create_engine(read_url(url))
    with engine.connect() as connection:
        pages = "SELECT pg_relation_size('resilience_jobs') / 8192"
        most = connection.scalar(text(pages)) / 10
        for statement, values in sent:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            [[plan]] = connection.exec_driver_sql(explain, values).scalars().all()
            read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
            assert "Seq Scan" not in str(plan), (statement, values)
            assert read < most, (statement, values)
            connection.rollback()
    engine.dispose()


@pytest.mark.parametrize(("limit", "amount"), [(2, "2+"), (3, "3"), (4, "3"), (None, "3")])
def test_counting_ends_at_a_limit_and_says_so(
    ledger: Ledger, limit: int | None, amount: str
) -> None:
    """The answer is exact up to the limit, and beyond it never claims to be."""
    ledger.add(job(name) for name in ("a", "b", "c"))

    [count] = ledger.counts(limit=limit)

    assert (count.amount, count.more) == (amount, amount.endswith("+"))


def test_queues_of_a_dependency_are_counted_together(ledger: Ledger) -> None:
    """An operator asks by dependency; one queue with more makes it more."""
    ledger.add([job("a", queue="mail"), job("b", queue="mail.bulk"), job("c", queue="mail.bulk")])

    assert [one.amount for one in ledger.counts()] == ["3"]
    assert [one.amount for one in ledger.counts(limit=1)] == ["2+"]
