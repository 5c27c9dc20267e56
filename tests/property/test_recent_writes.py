"""A user never reads less than they have written, whatever fails, unless the answer is marked."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from resilience.consistency import (
    ConsistentSession,
    OwnWriteUnavailableError,
    Token,
)
from resilience.consistency.reader import ConsistentReader
from resilience.errors import CircuitOpenError
from resilience.levels import Level
from resilience.testing.valkey import ValkeyProcess
from tests.unit.cuttable_store import CuttableStore

EXAMPLES = 100
MANY_EXAMPLES = 500
STEPS = 25
KEYS = ("a", "b")
USER = "user:7"
CUTS = ("question", "answer")
PROCESSES = st.integers(0, 1)


class Primary:
    """Where writes go: it numbers what it holds in the order in which it came.

    Attributes:
        came: What was written to each key, in order; None: nothing, or a deletion.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self.came: dict[str, list[int | None]] = {key: [None] for key in KEYS}
        self.down = False
        self.fault: str | None = None
        self.late: list[tuple[str, int | None]] = []
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None

    def read(self, key: str) -> int | None:
        """Return what came last."""
        if self.down:
            raise ConnectionError
        return self.came[key][-1]

    def write(self, key: str, value: int | None) -> None:
        """Hold *value*, or not, as the fault says."""
        before, self.before, after, self.after = self.before, None, self.after, None
        fault, self.fault = self.fault, None
        if before is not None:
            before()
        if fault == "late":
            self.late.append((key, value))
        elif fault not in {"refused", "lost"}:
            self.came[key].append(value)
        if after is not None:
            after()
        if fault == "refused":
            raise CircuitOpenError(KEYS[0])
        if fault is not None or self.down:
            raise TimeoutError

    def delete(self, key: str) -> None:
        """Hold nothing under *key*."""
        self.write(key, None)


class Replica:
    """Holds what the primary held once."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.held: dict[str, int | None] = {}

    def read(self, key: str) -> int | None:
        """Return what it holds."""
        return self.held.get(key)


class UserMachine(RuleBasedStateMachine):
    """One user in two processes, other users, and faults of primary and store."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.primary, self.replica = Primary(), Replica()
        namespace = uuid4().hex
        self.stores = [CuttableStore(url, namespace=namespace, timeout_seconds=60) for _ in "ab"]
        self.readers = [
            ConsistentReader(self.primary, [self.replica], name="profiles", store=store)
            for store in self.stores
        ]
        self.token = Token()
        self.values = 0
        self.acknowledged: dict[str, int] = dict.fromkeys(KEYS, -1)
        self.clean = True
        self.lost = False

    def teardown(self) -> None:
        """Close connections."""
        for store in self.stores:
            store.client.close()

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), delete=st.booleans())
    def write(self, process: int, key: str, *, delete: bool) -> None:
        """The user writes, and the primary says so."""
        self._write(process, key, self._session(), delete=delete)

    @rule(
        process=PROCESSES,
        key=st.sampled_from(KEYS),
        fault=st.sampled_from(["lost", "late", "done"]),
    )
    def fail_to_write(self, process: int, key: str, fault: str) -> None:
        """A write is lost, comes later or came; the primary does not answer."""
        self.primary.fault, self.clean = fault, False
        self._write(process, key, self._session(), delete=False)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS))
    def be_refused(self, process: int, key: str) -> None:
        """A write is refused: it is not done."""
        self.primary.fault = "refused"
        self._write(process, key, self._session(), delete=False)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), cut=st.sampled_from(CUTS))
    def write_past_the_store(self, process: int, key: str, cut: str) -> None:
        """A process cannot reach the store, or does not get its answers, as long as it writes."""
        self.cut(cut, process)
        self._write(process, key, self._session(), delete=False)
        self.cut(None, process)

    @rule(process=PROCESSES, down=st.booleans())
    def read_everything(self, process: int, *, down: bool) -> None:
        """The user reads all keys, perhaps while the primary is down."""
        before, self.primary.down = self.primary.down, down
        for key in KEYS:
            self._read(process, self._session(), key, clean=self.clean)
        self.primary.down = before

    @rule(
        process=PROCESSES,
        other=PROCESSES,
        key=st.sampled_from(KEYS),
        when=st.sampled_from(["before", "after"]),
    )
    def overlap(self, process: int, other: int, key: str, when: str) -> None:
        """While a write runs, another request of the user writes to the same key."""
        self.clean = False
        beside = self._session()

        def write() -> None:
            self._write(other, key, beside, delete=False)

        setattr(self.primary, when, write)
        self._write(process, key, self._session(), delete=False)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), other=PROCESSES)
    def read_during_a_write(self, process: int, other: int, key: str) -> None:
        """Another request of the user reads while a write runs."""
        self.primary.after = lambda: self._read(other, self._session(), key, clean=False)
        self._write(process, key, self._session(), delete=False)

    @precondition(lambda self: self.primary.late)
    @rule()
    def come_late(self) -> None:
        """A write that timed out comes to the primary after all."""
        key, value = self.primary.late.pop(0)
        self.primary.came[key].append(value)

    @rule(key=st.sampled_from(KEYS))
    def write_of_another(self, key: str) -> None:
        """Another user writes."""
        self.values += 1
        self.primary.came[key].append(self.values)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), with_token=st.booleans())
    def read(self, process: int, key: str, *, with_token: bool) -> None:
        """The user reads: in full not less than they have written, or it is marked."""
        session = self._session() if with_token or self.lost else ConsistentSession(USER)
        self._read(process, session, key, clean=self.clean)

    @rule(cut=st.sampled_from([None, *CUTS]), process=PROCESSES)
    def cut(self, cut: str | None, process: int) -> None:
        """A process's way to the store is cut, or mended."""
        self.stores[process].cut = cut
        self.clean = self.clean and cut is None
        self.lost = self.lost or cut is not None

    @rule()
    def flush(self) -> None:
        """The store loses everything."""
        self.clean, self.lost = False, True
        for key in self.stores[0].client.scan_iter(self.stores[0].key("*")):
            self.stores[0].client.delete(key)

    @rule(down=st.booleans())
    def move_primary(self, *, down: bool) -> None:
        """The primary goes, or comes back."""
        self.primary.down = down

    @rule()
    def replicate(self) -> None:
        """The replica catches up."""
        self.replica.held = {key: came[-1] for key, came in self.primary.came.items()}

    def _session(self) -> ConsistentSession:
        return ConsistentSession(USER, token=Token.from_json(self.token.to_json()))

    def _read(self, process: int, session: ConsistentSession, key: str, *, clean: bool) -> None:
        try:
            outcome = self.readers[process].read(key, session=session)
        except OwnWriteUnavailableError:
            # Only what failed can be a reason, and the primary can always answer.
            assert (self.primary.down, clean) == (True, False)
            return
        finally:
            self.token = self.token.merged(session.token())
        if outcome.level is Level.FULL:
            came = self.primary.came[key]
            newest = len(came) - 1 - came[::-1].index(outcome.value)
            assert newest >= self.acknowledged[key]
        else:
            assert self.primary.down
            assert session.level is outcome.level is Level.STALE
            assert not (clean and self.acknowledged[key] >= 0)

    def _write(self, process: int, key: str, session: ConsistentSession, *, delete: bool) -> None:
        reader, came = self.readers[process], self.primary.came[key]
        self.values += 1
        value = None if delete else self.values
        try:
            if delete:
                reader.delete(key, session=session)
            else:
                reader.write(key, value, session=session)
        except CircuitOpenError:
            pass
        except TimeoutError:
            self.clean = False
        else:
            mine = len(came) - 1 - came[::-1].index(value)
            self.acknowledged[key] = max(self.acknowledged[key], mine)
        finally:
            self.token = self.token.merged(session.token())


@pytest.mark.parametrize(
    "examples", [EXAMPLES, pytest.param(MANY_EXAMPLES, marks=pytest.mark.long)]
)
def test_user_never_reads_less_than_they_have_written(valkey: ValkeyProcess, examples: int) -> None:
    """In full, a read is never older than what the user knows to be written; else it is marked.

    And as long as nothing but the primary failed, what the user wrote is shown in full.
    """
    valkey.flush()
    run_state_machine_as_test(
        lambda: UserMachine(valkey.url),  # type: ignore[arg-type] # a factory will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
        ),
    )
