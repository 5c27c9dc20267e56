"""A fan-in record does, step by step, what a dictionary and a few sentences say."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from resilience.store import Answers, FanIn, Memory, Slot, Store
from resilience.testing.valkey import ValkeyProcess

STEPS = 15
LONG_SECONDS = 600.0
PARTS = ("a", "b", "c")
GOOD, BAD = "+1", '-{"reason": "ConnectionError"}'


class FanInMachine(RuleBasedStateMachine):
    """Reports, ends, reads and callbacks in any order, beside a model of them."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.answers = Answers(store)
        self.fan_in = FanIn(store, self.answers)
        self.fan = uuid4().hex
        self.came: dict[str, str] = {}
        self.stale: set[str] = set()
        self.final: str | None = None
        self.late = set[str]()
        self.unread = True

    @initialize(required=st.sets(st.sampled_from(PARTS)), callback=st.booleans())
    def open(self, required: set[str], *, callback: bool) -> None:
        """Begin, with any parts required."""
        self.required = required
        self.end = "callback" if callback else "ended"
        self.fan_in.open(
            self.fan,
            [(part, part in required) for part in PARTS],
            budget=LONG_SECONDS,
            memories={part: Memory(self._key(part), LONG_SECONDS) for part in PARTS},
            callback="{}" if callback else "",
        )

    @rule(part=st.sampled_from(PARTS))
    def remember(self, part: str) -> None:
        """An earlier fan-out left an answer of *part*."""
        if self.final is None:
            self.answers.remember(f"{self.fan}:{part}", "old", max_age=LONG_SECONDS)
            self.stale.add(part)

    @rule(part=st.sampled_from(PARTS), good=st.booleans())
    def report(self, part: str, *, good: bool) -> None:
        """A part reports, for the first time or again."""
        slot = Slot(fan=self.fan, part=part)
        told = self.fan_in.report(slot, GOOD if good else BAD, full=False)
        assert told == self._after_report(part, GOOD if good else BAD)

    @rule(why=st.sampled_from(["deadline", "unpublished"]))
    def finish(self, why: str) -> None:
        """A caller's time is up."""
        told = self.fan_in.finish(self.fan, why)
        assert told == ("already" if self.final else self.end)
        self.final = self.final or why

    @rule()
    def settle(self) -> None:
        """The callback was published."""
        if self.final and self.end == "callback":
            self.fan_in.settle(self.fan)

    @invariant()
    def record_is_as_modelled(self) -> None:
        """Whoever reads it sees the same, and the first one to see the end is told."""
        record = self.fan_in.collect(self.fan)
        assert record is not None
        assert {part: text.decode() for part, text in record.ended.items()} == self.came
        assert (record.final, record.late) == (self.final, len(self.late))
        assert record.first == (self.final is not None and self.unread)
        assert (record.callback is not None) == (self.end == "callback")
        without = {part for part in PARTS if self.came.get(part) != GOOD}
        assert set(record.stale) == (without & self.stale if self.final else set())
        self.unread = self.final is None

    def _after_report(self, part: str, payload: str) -> str:
        if part in self.came:
            return "duplicate"
        if self.final:
            self.late.add(part)
            return "late"
        self.came[part] = payload
        if len(self.came) == len(PARTS):
            self.final = "complete"
        elif payload == BAD and part in self.required - self.stale:
            self.final = "required"
        return self.end if self.final else "in"

    def _key(self, part: str) -> str:
        return self.answers.key(f"{self.fan}:{part}")


@pytest.fixture
def store(valkey: ValkeyProcess) -> Iterator[Store]:
    """A namespace of its own, on a server that may be slow but is there."""
    made = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=60)
    yield made
    made.client.close()


@pytest.mark.parametrize("examples", [25, pytest.param(80, marks=pytest.mark.long)])
def test_record_always_is_what_the_model_says(store: Store, examples: int) -> None:
    """Every operation answers, and leaves the record, as the model does; it ends at most once."""
    run_state_machine_as_test(
        lambda: FanInMachine(store),  # type: ignore[arg-type] # a factory will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
        ),
    )
