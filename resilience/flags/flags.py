"""The flags of one app: what a process knows of them, and orders for all processes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from resilience.clock import Clock, SystemClock
from resilience.errors import FeatureShedError, ResilienceError, StoreUnavailableError
from resilience.events import (
    FeatureOrdered,
    FlagMisused,
    FlagsLost,
    Listener,
    OrderNotRecorded,
    announce,
)
from resilience.flags.decision import Decision, Source, decide
from resilience.flags.document import BROWNOUT, OPEN, Document, Order, State
from resilience.flags.feature import Feature, Features
from resilience.flags.orders import Edit, after_loss, order_edit
from resilience.flags.trial import Drawn, Trial, TrialOrders
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store.flags import FlagStore

KNOWN_SECONDS = 300.0
"""What was last known is in force for so long without the store, and then the defaults."""
NOTHING = Document(version=-1)
"""What a process knows that has not reached the store yet, or lost it for too long."""
LOOK_AGAIN_SECONDS = 30.0
"""A refused call is told to come back this soon, as any order may be lifted before its end."""
CHANGE_TRIES = 20
ORDER_SECONDS = 1800.0
"""How long an order is in force unless told otherwise."""


class Flags(TrialOrders):
    """The flags of one app, as this process knows them.

    Evaluation costs no round trip: the process's pulse fetches what is agreed, at most four times a
    second. A process that has not asked for a second asks first, so that an answer is never older
    than that. Safe across fork, with threads, gevent and event loops.

    When the store is down, what was last known is in force for `KNOWN_SECONDS`, and then the
    defaults. Orders in that time are refused.

    Attributes:
        features: What was declared, by name.
        set_id: Where the fleet keeps the document; None: nowhere.
    """

    def __init__(
        self,
        features: Features,
        pulse: Pulse,
        store: FlagStore | None,
        *,
        keep: Callable[[str, Order], None] = lambda _name, _order: None,
        half_open: Callable[[str], bool] = lambda _dependency: False,
        listeners: Iterable[Listener] = (),
        clock: Clock | None = None,
    ) -> None:
        """Know nothing yet; connects to nothing.

        Args:
            features: By name.
            pulse: Brings what is agreed.
            store: Where orders go; None: there is no store, and the defaults hold.
            keep: Keeps an order in the ledger, by the name of its feature or as `brownout`.
            half_open: Tells whether the circuit of a dependency lets only probes through.
            listeners: Who hears of orders.
            clock: Where time comes from.
        """
        self.features = features
        self.set_id = None if store is None else store.key
        self._pulse = pulse
        self._store = store
        self._keep = keep
        self._half_open = half_open
        self._listeners = listeners
        self._monotonic = (clock or SystemClock()).monotonic
        self._document = NOTHING
        self._heard = self._monotonic()
        self._lost = False
        self._trials: Mapping[str, Trial] = {}
        self._decisions: Mapping[str, Decision] = {}
        self._answers: Mapping[str, bool | Trial] = {}
        self._misused: set[str] = set()
        self._probing = False  # whether an answer depends on a circuit
        self._until = self._changes = float("-inf")
        if features and store is not None:
            pulse.watch(self)

    def enabled(self, name: str, default: bool = True) -> bool:  # noqa: FBT001, FBT002 - as in every flag library
        """Tell whether the feature called *name* is on; never raises.

        Args:
            name: Of a declared feature.
            default: The answer if there is none of that name, which is announced once.

        A trial sheds no feature here: what the caller then does cannot be measured.
        """
        if self._monotonic() >= self._until:
            self._renew()
        try:
            return self._answers[name] is not False
        except (KeyError, TypeError):
            return self._unknown(name, default=default)

    def draw(self, name: str) -> bool | Drawn:
        """Return whether a declared feature is on, or how a trial measures this call."""
        if self._monotonic() >= self._until:
            self._renew()
        answer = self._answers[name]
        return answer if answer is True or answer is False else answer.draw()

    def decide(self, name: str) -> Decision:
        """Return whether the declared feature called *name* is on, and why.

        Raises:
            KeyError: There is none of that name.
        """
        if self._monotonic() >= self._until:
            self._renew()
        return self._decisions[name]

    async def freshen_async(self) -> None:
        """Let what is new come without blocking the event loop, before something is asked there."""
        now = self._monotonic()
        if now >= self._pulse.due:
            await self._pulse.beat_async(now)

    def shed_error(self, name: str, *, trial: bool = False) -> FeatureShedError:
        """Return the error of a call that is not made as the declared feature *name* is shed."""
        decision, level = self.decide(name), self.features[name].level
        if trial:
            return FeatureShedError(name, level, "measures what it costs", str(Source.TRIAL))
        until = float("inf") if decision.until is None else decision.until
        left = min(max(0.0, until - self._now()), LOOK_AGAIN_SECONDS)
        return FeatureShedError(name, level, decision.reason, str(decision.source), left)

    @property
    def version(self) -> int:
        """Version of the document that this process knows; -1: it knows none."""
        return self._document.version

    @property
    def document(self) -> Document:
        """All that is agreed, as far as this process knows."""
        if self._monotonic() >= self._until:
            self._renew()
        return self._document

    def order(
        self,
        name: str,
        state: State,
        *,
        actor: str,
        reason: str,
        seconds: float = ORDER_SECONDS,
        seen: int | None = None,
    ) -> Order:
        """Order a feature on or off for *seconds* in the whole fleet, or leave it to the rules.

        Args:
            name: Of the feature.
            state: `on`, `off`, or `auto` to end an order.
            actor: Who orders it.
            reason: Why.
            seconds: How long, more than 0; unused by `auto`.
            seen: Version of the last order of the feature that *actor* has seen, 0 for none; None:
                whatever there is.

        Raises:
            ConfigurationError: There is no such feature, *seconds* is out of range, or nobody or no
                reason is named.
            OrderConflictError: Somebody has given another order than the one *seen*.
            StoreUnavailableError: The order did not reach the fleet.
        """
        self.features.require(name, where="order")
        every = self.features.values()
        edit = order_edit(name, state, seconds, actor, reason, seen=seen, features=every)
        return self._give(name, edit)

    def brownout(
        self,
        level: Level,
        *,
        actor: str,
        reason: str,
        seconds: float = ORDER_SECONDS,
        seen: int | None = None,
    ) -> Order:
        """Shed every feature whose level is at most *level* for *seconds*; FULL ends that.

        Then the controller restores the features one by one. An order for a single feature wins.

        Raises:
            ConfigurationError: *seconds* is out of range, or nobody or no reason is named.
            OrderConflictError: Somebody has given another order of a brownout than the one *seen*.
            StoreUnavailableError: The order did not reach the fleet.
        """
        every = self.features.values()
        edit = order_edit(BROWNOUT, level, seconds, actor, reason, seen=seen, features=every)
        return self._give(BROWNOUT, edit)

    def _give(self, name: str, edit: Edit) -> Order:
        made = self.change(edit).orders[name]
        said = made.model_dump(include={"until", "actor", "reason"})
        announce(FeatureOrdered(feature=name, order=made.said, **said), self._listeners)
        try:
            self._keep(name, made)
        except ResilienceError as error:  # the order is in force all the same
            announce(OrderNotRecorded(feature=name, error=str(error)), self._listeners)
        return made

    def change(self, edit: Edit) -> Document:
        """Change what is agreed, in one step for the fleet; *edit* may run several times.

        A store that has lost what was agreed gets what this process knows, whatever *edit* returns.

        Raises:
            StoreUnavailableError: There is no store, it does not answer, or others change it all
                the time; the change may or may not have been made.
        """
        if self._store is None:
            msg = "flags need a store, and no setting says where one is"
            raise StoreUnavailableError(msg)
        for _ in range(CHANGE_TRIES):
            time = self._pulse.refresh()
            text = self._store.read()
            kept = self._parse(text) if text else None
            # Flushed or tampered: go on from what this process knows.
            now = after_loss(self._document, self.features, time) if kept is None else kept
            # Never less than this process has seen: the store may have lost some.
            now = now.model_copy(update={"version": max(now.version, self.version, 0)})
            made = edit(now, time)
            if made is None:
                if kept is not None or self.version < 0:
                    return now
                made = now
            made = made.model_copy(update={"version": max(now.version, made.version) + 1})
            if self._store.swap(text, made.text()):
                self._learn(made)
                return made
        msg = f"the flags changed {CHANGE_TRIES} times meanwhile; try again"
        raise StoreUnavailableError(msg)

    def hear(self, flags: bytes | None) -> None:
        """Learn what the store keeps; called by the pulse, whenever the store has answered.

        Without a document it was flushed, or never had one: what is known stays in force until a
        controller has written it again.
        """
        if not flags and flags is not None:
            return self._forget_late("the store keeps no state of the features")
        document = self._parse(flags) if flags else None
        if flags and document is None:
            return self._forget_late("the store keeps an unreadable state of the features")
        self._heard, self._lost = self._monotonic(), False
        if document is not None:
            self._learn(document)
        return None

    def restart(self) -> None:
        """Ask before the next answer, in a forked child; the parent's samples are the parent's."""
        self._trials = {}
        self._until = self._changes = float("-inf")

    def _renew(self) -> None:
        """Let the pulse bring what is new, and work out all answers."""
        now = self._monotonic()
        if now >= self._pulse.due:
            self._pulse.freshen(now)
            now = self._monotonic()
        if self._pulse.scope == "local" and self._store is not None:
            self._forget_late("the store is down")
        if now >= self._changes or self._probing:
            self._work_out()
        self._until = min(self._pulse.due, self._changes)

    def _forget_late(self, error: str) -> None:
        """Note that nothing new is known, and go back to the defaults after `KNOWN_SECONDS`."""
        if not self._lost and self.version >= 0:
            self._lost = True
            announce(FlagsLost(error=error), self._listeners)
        if self.version >= 0 and self._monotonic() - self._heard > KNOWN_SECONDS:
            self._learn(NOTHING)

    def _parse(self, text: bytes) -> Document | None:
        try:
            return Document.parse(text)
        except ValueError:
            return None

    def _learn(self, document: Document) -> None:
        self._document = document
        self._work_out()

    def _work_out(self) -> None:
        """Answer for every feature until something changes, or ends by itself."""
        while True:
            now, document, before = self._now(), self._document, self._trials
            trials = {}
            for name, plan in document.trials.items():
                feature = self.features.get(name)
                if plan.began <= now < plan.until and feature and self._store:
                    known = before.get(name)
                    new = Trial(plan, feature.level, self._store)
                    trials[name] = known if known and known.plan == plan else new
            for name, trial in before.items():
                if trials.get(name) is not trial:
                    trial.send()
            decisions = {
                one.name: self._decide(one, document, now) for one in self.features.values()
            }
            self._trials, self._decisions = trials, decisions
            self._probing = any(one.rule.startswith(OPEN) for one in document.shed.values())
            self._answers = {
                name: trials.get(name, True) if one.enabled else False
                for name, one in decisions.items()
            }
            self._changes = self._monotonic() + document.next_change(now) - now
            if document is self._document:  # else another thread has learned more meanwhile
                return

    def _decide(self, feature: Feature, document: Document, now: float) -> Decision:
        """Decide, but let calls probe a half-open circuit that had their feature shed.

        The circuit refuses all calls but its probes; without those it would never close.
        """
        made = decide(feature, document, now)
        if made.source is not Source.CONTROLLER or not made.reason.startswith(OPEN):
            return made
        probing = self._half_open(made.reason.removeprefix(OPEN))
        return replace(made, enabled=True, level=Level.FULL) if probing else made

    def _now(self) -> float:
        return self._pulse.fleet_time(self._monotonic())

    def _unknown(self, name: object, *, default: bool) -> bool:
        said = repr(name)[:100]
        if said not in self._misused:
            self._misused.add(said)
            announce(FlagMisused(feature=said, answer=default), self._listeners)
        return default
