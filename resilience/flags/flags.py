"""The flags of one app: what a process knows of them, and orders for all processes."""

from collections.abc import Callable, Iterable, Mapping

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
from resilience.flags.decision import Decision, Source, decide, let_probe
from resilience.flags.document import BROWNOUT, OPEN, Document, Order, State, ignore
from resilience.flags.feature import Features
from resilience.flags.orders import Edit, after_loss, order_edit
from resilience.flags.trial import ON, SHED, Draw, Trial, TrialOrders
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store.flags import FlagStore

LAST_KNOWN_SECONDS = 300.0
"""How long the last known state applies without the store. After that the defaults apply."""
NO_DOCUMENT = Document(version=-1)
"""The state of a process that has not reached the store yet, or lost it for too long."""
RETRY_AFTER_SECONDS_MAX = 30.0
"""Upper bound of `retry_after`: an order can be lifted early."""
MISUSED_MAX = 100
"""So many unknown names are announced: a name made of a user's input has no end of values."""
CHANGE_TRIES = 20
ORDER_SECONDS = 1800.0
"""How long an order is in force unless told otherwise."""


class Flags(TrialOrders):
    """The flags of one app, as this process knows them.

    Evaluation costs no round trip: the process's pulse fetches what is agreed, at most four times a
    second. A process that has not asked for a second asks first, so that an answer is never older
    than that. Safe across fork, with threads, gevent and event loops.

    While the store is down, the last known state applies for `LAST_KNOWN_SECONDS`, and then the
    defaults. Orders in that time are refused.

    Attributes:
        features: What was declared, by name.
        set_id: Where the fleet keeps the document; None: nowhere.
        is_lost: Whether the store is down, or holds no readable document any more.
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
        self._document = NO_DOCUMENT
        self._received, self.is_lost = self._monotonic(), False
        self._trials: Mapping[str, Trial] = {}
        self._decisions: Mapping[str, Decision] = {}
        self._answers: Mapping[str, Draw | Trial] = {}
        self._misused: set[str] = set()
        self._probing = False  # whether an answer depends on a circuit
        self._fresh_until = self._next_change = float("-inf")
        if features and store is not None:
            pulse.watch(self)

    def enabled(self, name: str, default: bool = True) -> bool:  # noqa: FBT001, FBT002 - as in every flag library
        """Tell whether the feature called *name* is on; never raises.

        Args:
            name: Of a declared feature.
            default: The answer if there is none of that name, which is announced once.

        A trial sheds no feature here: what the caller then does cannot be measured.
        """
        if self._monotonic() >= self._fresh_until:
            self._renew()
        try:
            return self._answers[name] is not SHED
        except (KeyError, TypeError):
            return self._unknown(name, default=default)

    def draw(self, name: str, *, measurable: bool = True) -> Draw:
        """Return how to make one call of a declared feature; a trial may measure it if it can."""
        if self._monotonic() >= self._fresh_until:
            self._renew()
        answer = self._answers[name]
        if isinstance(answer, Draw):
            return answer
        return answer.draw() if measurable else ON

    def decide(self, name: str) -> Decision:
        """Return whether the declared feature called *name* is on, and why.

        Raises:
            KeyError: No declared feature has that name.
        """
        if self._monotonic() >= self._fresh_until:
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
        left = min(max(0.0, until - self._now()), RETRY_AFTER_SECONDS_MAX)
        return FeatureShedError(name, level, decision.reason, str(decision.source), left)

    @property
    def version(self) -> int:
        """Version of the document that this process knows; -1: it knows none."""
        return self._document.version

    @property
    def document(self) -> Document:
        """All that is agreed, as far as this process knows."""
        if self._monotonic() >= self._fresh_until:
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
                self._adopt(made)
                return made
        msg = f"the flags changed {CHANGE_TRIES} times meanwhile; try again"
        raise StoreUnavailableError(msg)

    def receive(self, flags: bytes | None) -> None:
        """Adopt what the store keeps; called by the pulse whenever the store has answered.

        Args:
            flags: None: the version that this process knows. Empty: the store was flushed, or
                never had a document; the last known state applies until a worker has written it
                again.
        """
        if flags is not None:
            document = self._parse(flags) if flags else None
            if document is None:
                if flags or self.version >= 0:  # else the fleet is new
                    state = "an unreadable" if flags else "no"
                    self._expire(f"the store keeps {state} state of the features")
                return
            self._adopt(document)
        self._received, self.is_lost = self._monotonic(), False

    def restart(self) -> None:
        """Ask before the next answer, in a forked child; the parent's samples are the parent's."""
        self._trials = {}
        self._fresh_until = self._next_change = float("-inf")

    def _renew(self) -> None:
        """Let the pulse bring what is new, and work out all answers."""
        now = self._monotonic()
        if now >= self._pulse.due:
            self._pulse.freshen(now)
            now = self._monotonic()
        if self._pulse.scope == "local" and self._store is not None:
            self._expire("the store is down")
        if now >= self._next_change or self._probing:
            self._work_out()
        self._fresh_until = min(self._pulse.due, self._next_change)

    def _expire(self, error: str) -> None:
        """Announce that nothing new is known; return to the defaults after `LAST_KNOWN_SECONDS`."""
        late = self._monotonic() - self._received > LAST_KNOWN_SECONDS
        if not self.is_lost or (late and self.version >= 0):
            self.is_lost = True
            announce(FlagsLost(error=error, defaults=late or self.version < 0), self._listeners)
            if late:
                self._adopt(NO_DOCUMENT)

    def _parse(self, text: bytes) -> Document | None:
        note = ignore if self._store is None else self._store.unreadable
        try:
            return Document.parse(text, now=self._now(), note=note)
        except ValueError:
            return None

    def _adopt(self, document: Document) -> None:
        self._document = document
        self._work_out()

    def _work_out(self) -> None:
        """Answer for every feature until something changes, or ends by itself."""
        while True:
            now, document = self._now(), self._document
            trials = {}
            for name, plan in document.trials.items():
                feature = self.features.get(name)
                # Not `plan.began <= now`: this process's idea of fleet time may lag a little.
                if now < plan.until and feature and self._store:
                    trial = self._trials.get(name)
                    new = Trial(plan, feature.level, self._store)
                    trials[name] = trial if trial and trial.plan == plan else new
            decisions = {
                name: let_probe(decide(feature, document, now), self._half_open)
                for name, feature in self.features.items()
            }
            for name, trial in self._trials.items():
                if trials.get(name) is not trial:
                    trial.finish()
            self._trials, self._decisions = trials, decisions
            self._probing = any(one.rule.startswith(OPEN) for one in document.shed.values())
            self._answers = {
                name: self._answer(one, trials.get(name)) for name, one in decisions.items()
            }
            self._next_change = self._monotonic() + document.next_change(now) - now
            if document is self._document:  # else another thread has learned more meanwhile
                return

    def _answer(self, decision: Decision, trial: Trial | None) -> Draw | Trial:
        if not decision.enabled:
            return SHED
        # A trial must not undo what a person ordered.
        return trial if trial and decision.source is Source.DEFAULT else ON

    def _now(self) -> float:
        return self._pulse.fleet_time(self._monotonic())

    def _unknown(self, name: object, *, default: bool) -> bool:
        asked = repr(name)[:100]
        if asked not in self._misused and len(self._misused) < MISUSED_MAX:
            self._misused.add(asked)
            announce(FlagMisused(feature=asked, answer=default), self._listeners)
        return default
