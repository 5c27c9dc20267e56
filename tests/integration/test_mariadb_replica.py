"""A real MariaDB primary and its replica, as tests of reads behind a primary need them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql
import pytest

from resilience.testing.mariadb import (
    DATABASE,
    READER,
    MariaDbProcess,
    MariaDbReplica,
    running_mariadb,
    running_replica_of,
)
from resilience.testing.ports import LOCALHOST
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary with a table of notes, and a replica that replicates through a proxy."""

    primary: MariaDbProcess
    link: TcpProxy
    replica: MariaDbReplica


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A pair, the replica level with the primary; tests leave it as they found it but for notes."""
    with running_mariadb() as primary:
        primary.emptied()
        with cursor(primary, "root") as cur:
            cur.execute("CREATE TABLE notes (body VARCHAR(40))")
        link = TcpProxy(primary.port)
        try:
            with running_replica_of(primary, through=link.port) as replica:
                await_replay(replica, primary.written_gtids())
                yield Pair(primary, link, replica)
        finally:
            link.close()


@contextmanager
def cursor(server: MariaDbProcess, user: str) -> Iterator[pymysql.cursors.Cursor]:
    """Connect, and commit what a block did."""
    with (
        pymysql.connect(
            host=LOCALHOST, port=server.port, user=user, database=DATABASE
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor
        connection.commit()


def write(server: MariaDbProcess, note: str, user: str = "root") -> str:
    """Commit a note, and return the position behind it."""
    with cursor(server, user) as cur:
        cur.execute("INSERT INTO notes VALUES (%s)", [note])
    return server.written_gtids()


def has(server: MariaDbReplica, note: str) -> bool:
    """Tell whether a reader of *server* sees the note."""
    with cursor(server, READER) as cur:
        return cur.execute("SELECT 1 FROM notes WHERE body = %s", [note]) > 0


def await_replay(replica: MariaDbReplica, gtids: str) -> None:
    """Wait until readers of the replica see what was committed before *gtids*."""
    wait_until(lambda: replica.has_replayed(gtids), SECONDS, f"{gtids} is replayed")


def test_replica_shows_a_write_when_it_has_replayed_its_position(pair: Pair) -> None:
    """The position taken after a commit is one that the replica reaches, and it covers the row."""
    await_replay(pair.replica, write(pair.primary, "replicated"))

    assert has(pair.replica, "replicated")


def test_replica_refuses_a_write_of_its_reader(pair: Pair) -> None:
    """Only the primary takes writes."""
    with pytest.raises(pymysql.err.OperationalError, match="read-only"):
        write(pair.replica, "to the wrong one", user=READER)


def test_servers_share_no_directory_for_temporary_tables(pair: Pair) -> None:
    """A server that starts removes those that it finds, also while another one uses them."""
    places = set()
    for server in (pair.primary, pair.replica):
        with cursor(server, "root") as cur:
            cur.execute("SELECT @@tmpdir")
            places.add(cur.fetchone())
    assert len(places) == 2


@pytest.mark.long
def test_replica_stays_behind_while_its_link_is_stalled(pair: Pair) -> None:
    """Another replica, on a link of its own, gets what this one lacks until its link resumes."""
    with running_replica_of(pair.primary) as other:
        gtids = pair.primary.written_gtids()
        pair.link.stall()
        try:
            for number in range(20):
                gtids = write(pair.primary, f"stalled {number}")
                await_replay(other, gtids)
            seen = [has(pair.replica, f"stalled {number}") for number in (0, 19)]
            behind = not pair.replica.has_replayed(gtids)
        finally:
            pair.link.resume()

    assert seen == [False, False]
    assert behind
    await_replay(pair.replica, gtids)
    assert has(pair.replica, "stalled 19")


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "silent"])
def test_replica_catches_up_when_its_link_was_lost(pair: Pair, *, cut: bool) -> None:
    """What a link lost comes again over the next one, which a missing heartbeat asks for."""
    pair.link.swallow()
    gtids = write(pair.primary, f"swallowed {cut}")
    pair.link.heal()
    if cut:
        pair.link.cut()

    await_replay(pair.replica, gtids)
    assert has(pair.replica, f"swallowed {cut}")


@pytest.mark.long
def test_replica_catches_up_after_a_kill(pair: Pair) -> None:
    """It goes on where it was."""
    pair.replica.kill()
    gtids = write(pair.primary, "while it was down")
    pair.replica.start()

    await_replay(pair.replica, gtids)
    assert has(pair.replica, "while it was down")
