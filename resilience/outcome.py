"""An answer and how good it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from resilience.levels import Level

T = TypeVar("T")


class JsonAnswer:
    """What is written as `{"data": …, "_meta": {…}}`.

    Not an ABC: every argument and result of a job is tested for being an answer. Most are none, and
    for these the metaclass would answer in Python code.
    """

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return `{"data": …, "_meta": {…}}` with answers in the data as they are.

        For an encoder that names the type of each, so that it can be rebuilt.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return `{"data": …, "_meta": {…}}` of plain dicts and lists, for any JSON encoder.

        An answer in the data becomes the same; `from_json` leaves it a mapping.
        """
        wire = self.to_wire()
        return {**wire, "data": _plain(wire["data"])}

    def to_json(self) -> dict[str, Any]:
        """Return the same as `to_dict`: the document, not its text."""
        return self.to_dict()


def _plain(value: object) -> object:
    if isinstance(value, JsonAnswer):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Hop:
    """Where the time of one job went, in seconds.

    Attributes:
        task: Its name.
        queued: From its publish until a worker took it.
        waited: In that worker, for a process or thread that is free.
        ran: From then on.
    """

    task: str
    queued: float
    waited: float
    ran: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(JsonAnswer, Generic[T]):
    """An answer, and how good it is.

    Attributes:
        value: The answer.
        level: How good it is.
        reason: Why it is not FULL: the class name of the error that the first choice ended in.
        source: Which step answered; None for the first choice.
        age: Seconds since the value was fresh; None if it is fresh or has no age.
        dependency: Who should have answered.
        hops: Where the time went, job by job, if they ran under a budget.
        fault: Names of the faults that were injected into the call, if any; see docs/chaos.md.
    """

    value: T
    level: Level = Level.FULL
    reason: str | None = None
    source: str | None = None
    age: float | None = None
    dependency: str | None = None
    hops: tuple[Hop, ...] = ()
    fault: str | None = None

    @property
    def degraded(self) -> bool:
        """Tell whether anything but the first choice answered."""
        return self.level > Level.FULL

    def to_wire(self) -> dict[str, Any]:
        """Return `{"data": …, "_meta": {…}}` with answers in the data as they are.

        `partial`, `missing` and `degraded` mean the same as in a `PartialResponse`.
        """
        degraded = self.degraded
        meta: dict[str, Any] = {
            "partial": degraded,
            "missing": [],
            "degraded": [self.dependency or "answer"] if degraded else [],
            "level": int(self.level),
            "reason": self.reason,
            "source": self.source,
            "age": self.age,
            "dependency": self.dependency,
        }
        if self.hops:
            meta["hops"] = [asdict(hop) for hop in self.hops]
        if self.fault:
            meta["fault"] = self.fault
        return {"data": self.value, "_meta": meta}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Outcome[Any]":
        """Return the outcome that `to_json` wrote.

        Raises:
            KeyError: *document* lacks `data` or `_meta`.
            ValueError: It is no such document, or its level is none of the five.
        """
        try:
            meta = document["_meta"]
            hops = meta.get("hops")
            return Outcome(
                value=document["data"],
                level=Level(meta["level"]),
                reason=meta.get("reason"),
                source=meta.get("source"),
                age=meta.get("age"),
                dependency=meta.get("dependency"),
                hops=tuple(Hop(**hop) for hop in hops) if hops else (),
                fault=meta.get("fault"),
            )
        except (AttributeError, TypeError) as error:
            msg = f"this is no outcome: {document!r:.200}"
            raise ValueError(msg) from error
