"""What a fleet has agreed on about its features: one document, changed one version at a time."""

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from resilience.declared import AHEAD_SECONDS, ORDER_SECONDS_MAX
from resilience.faults.fault import Fault
from resilience.levels import Level

Time = Annotated[float, Field(allow_inf_nan=False)]
"""Fleet time in seconds."""
OPEN = "open:"
"""Begin of the rule that sheds features of a dependency whose circuit is open."""
Version = Annotated[int, Field(ge=0, lt=10**18)]
"""Of the document; begins with milliseconds, and grows by one."""
_VERSION: TypeAdapter[int] = TypeAdapter(Version)
BROWNOUT = "brownout"
"""Rule of what a brownout shed, and the key of its order: no feature has this name."""
State = Literal["on", "off", "auto"]
Note = Callable[[object, str], None]
"""Is told what is wrong, and with which value."""


def ignore(_error: object, _name: str) -> None:
    """Note nothing."""


class Entry(BaseModel):
    """A part of the document; fields that another version of this library wrote are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


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
    version: Version
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
    def parse(cls, text: bytes, *, now: float = math.inf, note: Note = ignore) -> Self:
        """Return what `text` wrote; an entry that it cannot have written is left out.

        Args:
            text: From the store.
            now: Fleet time; no order is in force for more than a year from then.
            note: Told what is wrong with an entry, and its name, such as `orders.search`; or with
                all of it, by an empty name.

        Raises:
            ValueError: It did not write this: the store is in other hands.
        """
        version, _, body = text.partition(b"|")
        try:
            number = _VERSION.validate_python(version.decode())
            found = cls._without_wrong(body, note)
        except ValueError as error:
            note(error, "")
            msg = f"the store keeps {text[:200]!r} as state of the features: {error}"
            raise ValueError(msg) from error
        changes: dict[str, Any] = {"version": number}
        latest = now + ORDER_SECONDS_MAX + AHEAD_SECONDS
        for field in ("orders", "trials", "faults"):
            ends: dict[str, Any] = getattr(found, field)
            changes[field] = {name: one for name, one in ends.items() if one.until <= latest}
            for name in ends.keys() - changes[field].keys():
                note("in force for more than a year", f"{field}.{name}")
        if found.fault_stop is not None and found.fault_stop.until > latest:
            note("in force for more than a year", "fault_stop")
            changes["fault_stop"] = None
        return found.model_copy(update=changes)

    @classmethod
    def _without_wrong(cls, body: bytes, note: Note) -> Self:
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            wrong = {(*one["loc"], "", "")[:2]: one["msg"] for one in error.errors()}
            if any(name == "" for _, name in wrong):
                raise  # not an entry: all of a kind
        document = json.loads(body)
        for (field, name), why in wrong.items():
            holder, key = (document, field) if field == "fault_stop" else (document[field], name)
            holder.pop(key, None)
            note(why, f"{field}.{name}")
        return cls.model_validate_json(json.dumps(document))

    def next_change(self, now: float) -> float:
        """Return when something of this ends by itself next, later than *now*."""
        ends = [one.until for one in self.orders.values()]
        ends += [one.until for one in self.trials.values()]
        return min((end for end in ends if end > now), default=float("inf"))
