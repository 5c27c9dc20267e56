"""What a fleet has agreed on about its features: one document, changed one version at a time."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.faults.fault import Fault
from resilience.levels import Level

Time = Annotated[float, Field(allow_inf_nan=False)]
"""Fleet time in seconds."""
OPEN = "open:"
"""Begin of the rule that sheds features of a dependency whose circuit is open."""
BROWNOUT = "brownout"
"""Rule of what a brownout shed, and the key of its order: no feature has this name."""
State = Literal["on", "off", "auto"]


class Entry(BaseModel):
    """A part of the document; fields that another version of this library wrote are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Order(Entry):
    """What a person or a flag provider wants of one feature, or of all: a brownout.

    Attributes:
        state: `on` or `off`; `auto`: the controller decides again. For a brownout, the level: every
            feature whose level is at most that is shed; FULL: the brownout is over.
        until: When the order ends by itself.
        actor: Who gave it.
        reason: Why.
        version: Of the document that the order made; a newer order of the feature has a higher one.
        at: When it was given.
        kept: Whether the ledger keeps it. A flag provider gives its orders again after a loss.
    """

    state: State | Level
    until: Time
    actor: str
    reason: str
    version: int
    at: Time
    kept: bool = True

    @property
    def said(self) -> str:
        """The order in a word: `on`, `off`, `auto` or `reduced`, say."""
        if isinstance(self.state, Level):
            return self.state.name.lower() if self.state else "off"
        return self.state


class Shed(Entry):
    """What the controller has decided about one feature.

    Attributes:
        rule: What made it decide, such as `open:search` or `load`.
        measured: What it measured, in the unit of the rule.
        threshold: What that reached.
        since: When it decided.
        escalated: Whether it has been announced that this lasts long.
    """

    rule: str
    measured: float
    threshold: float
    since: Time
    escalated: bool = False


class TrialPlan(Entry):
    """A trial that measures what a feature costs.

    Attributes:
        id: Key of its counts.
        share: Of all calls, for which the feature is shed; as many are the control.
        began: When it began.
        until: When it ends.
        actor: Who ordered it.
        reason: Why.
    """

    id: str
    share: Annotated[float, Field(gt=0, le=0.5)]
    began: Time
    until: Time
    actor: str
    reason: str


class Cost(Entry):
    """What a trial has measured: worker-seconds that a call takes less without the feature.

    Attributes:
        seconds: The best estimate.
        low: Lower end of its 99 % confidence interval.
        high: Upper end.
        calls: Calls on both sides.
        at: When the trial ended.
    """

    seconds: float
    low: float
    high: float
    calls: int
    at: Time


class FaultOrder(Fault):
    """A fault that somebody put in force.

    Attributes:
        name: Under which it is listed and cleared.
        at: When it was ordered.
        until: When it ends by itself.
        actor: Who ordered it.
        reason: Why.
    """

    name: str
    at: Time
    until: Time
    actor: str
    reason: str


class FaultStop(Entry):
    """An order that ended all faults, and refuses new ones; attributes as those of `FaultOrder`."""

    at: Time
    until: Time
    actor: str
    reason: str


class Document(Entry):
    """All that is agreed: about features, by their names, and about faults.

    Attributes:
        version: Grows by one with every change.
        orders: The last order of each feature, and of a brownout under `brownout`.
        shed: What the controller has shed, in that order.
        switched: When the controller last switched each feature.
        trials: Those that run.
        costs: What trials have measured.
        faults: Those in force, by their own names.
        fault_stop: Ended all faults, and refuses new ones.
    """

    version: int = 0
    orders: dict[str, Order] = {}
    shed: dict[str, Shed] = {}
    switched: dict[str, Time] = {}
    trials: dict[str, TrialPlan] = {}
    costs: dict[str, Cost] = {}
    faults: dict[str, FaultOrder] = {}
    fault_stop: FaultStop | None = None

    def text(self) -> str:
        """Return the form in which the store keeps it."""
        return f"{self.version}|{self.model_dump_json(exclude={'version'})}"

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return what `text` wrote.

        Raises:
            ValueError: It did not write this: the store is in other hands.
        """
        version, _, body = text.partition(b"|")
        try:
            return cls.model_validate_json(body).model_copy(update={"version": int(version)})
        except ValidationError as error:
            msg = f"the store keeps {text[:200]!r} as state of the features: {error}"
            raise ValueError(msg) from error

    def next_change(self, now: float) -> float:
        """Return when something of this ends by itself next, later than *now*."""
        ends = [one.until for one in self.orders.values()]
        ends += [one.until for one in self.trials.values()]
        return min((end for end in ends if end > now), default=float("inf"))
