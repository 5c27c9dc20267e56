"""The controller in simulated time, whatever happens to load, dependencies, leaders and the store.

Workers run the real `Flags` and the real step; their store is a variable, and their pulse brings
what it holds when a test says so.
"""

from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from resilience import Feature, Level, SheddingPolicy
from resilience.events import Event, FeatureRestored, FeatureShed
from resilience.flags import Features, Flags, Source
from resilience.flags.controller import Reading, step
from resilience.flags.decision import decide
from resilience.flags.document import Document
from tests.unit.hand_clock import HandClock

JITTER = 0.2

POLICY = SheddingPolicy(dwell_seconds=10)
DWELL = POLICY.dwell_seconds
FEATURES = Features(
    [
        Feature("search", level=Level.FAILED, depends_on=("search",), automatic=False),
        Feature("ranking", level=Level.REDUCED, depends_on=("search",), cost=3),
        Feature("spelling", level=Level.STALE, depends_on=("search",), cost=2),
        Feature("similar", level=Level.STALE, depends_on=("search", "shop"), cost=1),
        Feature("avatars", level=Level.STATIC),
        Feature("beta", level=Level.STALE, depends_on=("shop",), default=False),
    ],
    ["search", "shop"],
)
RULES = ["open:search", "p95:search", "held:shop", "load"]
WORKERS = 3
EPSILON = 1e-6
NAMES = st.sampled_from(list(FEATURES))
ANY = st.integers(0, WORKERS - 1)


class Store:
    """What flags.lua does, in a variable."""

    key = "flags"
    text: bytes | None = None

    def unreadable(self, error: object, name: str) -> None:
        """Announce nothing: what is lost here is written anew."""

    def read(self) -> bytes | None:
        """Return the text."""
        return self.text

    def swap(self, before: bytes | None, after: str) -> bool:
        """Write *after* if nobody has written since *before*."""
        if (self.text or b"") != (before or b""):
            return False
        self.text = after.encode()
        return True


class Pulse:
    """Brings what the store holds when it is asked to."""

    due = float("inf")
    scope = "fleet"

    def __init__(self, store: Store, clock: HandClock) -> None:
        self._store, self._clock = store, clock
        self._watcher: Any = None

    def watch(self, watcher: object) -> None:
        """Remember who wants to know."""
        self._watcher = watcher

    def fleet_time(self, monotonic: float) -> float:
        """Return the time, which is the same everywhere."""
        return monotonic

    def refresh(self) -> float:
        """Bring it, unless its version is the one that is known; an exchange takes a while."""
        self._clock.advance(0.002)
        text = self._store.text
        same = text and text.startswith(b"%d|" % self._watcher.version)
        self._watcher.receive(None if same else text or b"")
        return self._clock.now()


class Fleet(RuleBasedStateMachine):
    """Three workers, of which one or two think that they lead."""

    @initialize()
    def begin(self) -> None:
        """Begin without any state."""
        self.store, self.clock = Store(), HandClock()
        self.measured = dict.fromkeys(RULES, 0.0)
        self.before = self.measured
        self.workers = [self.worker() for _ in range(WORKERS)]
        self.leader = 0
        self.switched: dict[str, float] = {}
        self.restored = float("-inf")
        self.shed: dict[str, float] = {}

    def worker(self) -> Flags:
        """Start one, which knows nothing."""
        pulse = cast("Any", Pulse(self.store, self.clock))
        return Flags(FEATURES, pulse, cast("Any", self.store), clock=self.clock)

    @rule(measured=st.dictionaries(st.sampled_from(RULES), st.sampled_from([0, 0.5, 0.7, 1, 3])))
    def change_what_is_measured(self, measured: dict[str, float]) -> None:
        """Let there be load and outages, or none."""
        self.before, self.measured = self.measured, {**self.measured, **measured}

    @rule(
        name=NAMES, state=st.sampled_from(["on", "off", "auto"]), seconds=st.floats(1, 600), by=ANY
    )
    def order(self, name: str, state: Any, seconds: float, by: int) -> None:  # noqa: ANN401 - one of three
        """Let a person order one feature on or off."""
        self.workers[by].order(name, state, seconds=seconds, actor="ann", reason="so")

    @rule(level=st.sampled_from(Level), seconds=st.floats(1, 60), by=ANY)
    def brown_out(self, level: Level, seconds: float, by: int) -> None:
        """Let a person shed all of a level, or end that."""
        self.workers[by].brownout(level, seconds=seconds, actor="ann", reason="so")

    @rule(leader=ANY)
    def kill_the_leader(self, leader: int) -> None:
        """Let another worker lead, or the one that is started in its place."""
        self.workers[self.leader] = self.worker()
        self.leader = leader

    @rule(text=st.sampled_from([None, b"", b"7|{", b"x"]), who=st.none() | ANY)
    def lose_the_store(self, text: bytes | None, who: int | None) -> None:
        """Flush or garble it; the next worker that reports writes what it knows, if anything."""
        self.store.text = text
        if who is not None and self.workers[who].version >= 0:
            self.workers[who].change(lambda *_: None)

    @rule(who=ANY)
    def hear(self, who: int) -> None:
        """Let a worker hear what is agreed; those that do not go on from older copies."""
        if self.store.text:
            self.workers[who].change(lambda *_: None)

    @rule(who=ANY)
    def lead_beside_the_leader(self, who: int) -> None:
        """Let a worker go on that led until now, and knows only what was measured before."""
        self.lead(self.workers[who], self.before)

    @rule(seconds=st.lists(st.sampled_from([0.1, 1.0, 3.0, 9.9, 10.0]), min_size=1, max_size=15))
    def pass_time(self, seconds: list[float]) -> None:
        """Let time pass, and the leader lead."""
        for one in seconds:
            self.clock.advance(one)
            self.lead(self.workers[self.leader], self.measured)

    def lead(self, flags: Flags, measured: dict[str, float]) -> None:
        """Do what the leader does, and check it."""
        readings = [
            Reading(rule=name, measured=float(share), threshold=1.0)
            for name, share in measured.items()
        ]
        if flags.version < 0:
            flags.change(lambda document, _: document)
        before: list[Document] = []
        said: list[Event] = []

        def edit(document: Document, now: float) -> Document | None:
            made, said[:] = step(FEATURES, document, readings, now, POLICY)
            before[:] = [document]
            return made

        after = flags.change(edit)
        self.check(before[0], after, said)

    def check(self, before: Document, after: Document, said: list[Event]) -> None:
        """Check one step."""
        now = self.clock.now()
        assert after.orders == before.orders
        for event in said:
            if not isinstance(event, FeatureShed | FeatureRestored):
                continue
            name = event.feature
            decision = decide(FEATURES[name], before, now)
            assert decision.until is None, "ordered"
            last = self.switched.get(name, float("-inf"))
            assert now - last >= DWELL - EPSILON, "more switches than the dwell allows"
            self.switched[name] = now
            if isinstance(event, FeatureShed):
                assert decision.source is Source.DEFAULT
                assert FEATURES[name].automatic
                self.one_in_a_dwell(cause(event.rule), now)
            else:
                assert now - self.restored >= DWELL - EPSILON
                assert event.measured <= event.threshold <= 0.5
                self.restored = now
                self.was_last(name, before, now)

    def one_in_a_dwell(self, cause: str, now: float) -> None:
        """Check that the cause has not shed another feature just now."""
        assert now - self.shed.get(cause, float("-inf")) >= DWELL - EPSILON
        self.shed[cause] = now

    def was_last(self, name: str, before: Document, now: float) -> None:
        """Check that the cause has shed nothing later, but for what a person decides about."""
        names = list(before.shed)
        for other in names[names.index(name) + 1 :]:
            if cause(before.shed[other].rule) == cause(before.shed[name].rule):
                assert decide(FEATURES[other], before, now).until is not None

    def teardown(self) -> None:
        """Let all be well: everything comes back."""
        if not hasattr(self, "workers"):
            return
        self.measured = dict.fromkeys(RULES, 0.0)
        self.clock.advance(600)  # orders end
        steps = int((len(FEATURES) + 2) * DWELL * (1 + JITTER))
        self.pass_time([1.0] * steps)
        document = self.workers[self.leader].document
        assert not document.shed
        for one in self.workers:
            one.change(lambda *_: None)
            assert {name: one.enabled(name) for name in FEATURES} == {
                name: feature.default for name, feature in FEATURES.items()
            }


def cause(rule: str) -> str:
    """Return the dependency of a rule, or the rule itself."""
    return rule.partition(":")[2] or rule


@pytest.mark.parametrize("examples", [20, pytest.param(60, marks=pytest.mark.long)])
def test_controller_keeps_its_promises_whatever_happens(examples: int) -> None:
    """Any sequence of load, outages, orders, leader deaths and store losses.

    Never more switches of a feature than the dwell allows, never an order of a person overridden,
    features come back in the reverse of the order in which they were shed, and all of them do when
    all is well.
    """
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
