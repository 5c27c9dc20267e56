"""What a fleet has agreed on about its features: one document, changed one version at a time."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.levels import Level

Time = Annotated[float, Field(allow_inf_nan=False)]
"""Fleet time in seconds."""
OPEN = "open:"
"""Begin of the rule that sheds features of a dependency whose circuit is open."""
BROWNOUT = "brownout"
"""Rule of what a brownout shed, and the name under which its orders are kept."""


class Entry(BaseModel):
    """A part of the document; fields that another version of this library wrote are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Order(Entry):
    """What a person, or a provider, wants of one feature.

    Attributes:
        state: `on`, `off`, or `auto`: nothing is wanted any more.
        until: When the order ends by itself.
        actor: Who gave it.
        reason: Why.
        version: Of the document that the order made; a newer order of the feature has a higher one.
        at: When it was given.
    """

    state: Literal["on", "off", "auto"]
    until: Time
    actor: str
    reason: str
    version: int
    at: Time


class BrownoutOrder(Entry):
    """An order to shed every feature of a level and below; fields as in `Order`.

    Attributes:
        level: That level; FULL: the brownout is over.
    """

    level: Level
    until: Time
    actor: str
    reason: str
    version: int
    at: Time


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


class Document(Entry):
    """All that is agreed, by name of the feature.

    Attributes:
        version: Grows by one with every change.
        orders: The last order of each feature.
        brownout: The last order of a brownout.
        shed: What the controller has shed, in that order.
        switched: When the controller last switched each feature.
        trials: Those that run.
        costs: What trials have measured.
    """

    version: int = 0
    orders: dict[str, Order] = {}
    brownout: BrownoutOrder | None = None
    shed: dict[str, Shed] = {}
    switched: dict[str, Time] = {}
    trials: dict[str, TrialPlan] = {}
    costs: dict[str, Cost] = {}

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
        if self.brownout is not None:
            ends.append(self.brownout.until)
        return min((end for end in ends if end > now), default=float("inf"))
