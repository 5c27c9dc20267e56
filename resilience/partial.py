"""An answer made of parts, of which some may be missing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resilience.levels import Level
from resilience.outcome import JsonAnswer, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAnswer:
    """What became of one part.

    Attributes:
        name: The part; parts of a nested fan-out have dotted names.
        outcome: Its answer; None, or one that is FAILED: it is missing.
        reason: Why it is missing or degraded; None: what the outcome says.
        retry_after: Seconds after which its dependency says to come back.
        required: Whether the whole response fails without it.
    """

    name: str
    outcome: Outcome[Any] | None
    reason: str | None = None
    retry_after: float | None = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialResponse(JsonAnswer):
    """What a fan-out could deliver by its deadline, and what it could not.

    Attributes:
        data: Values of the parts that answered, by name; parts of a nested fan-out in a
            mapping of their own.
        missing: Parts without an answer.
        degraded: Parts whose answer is not FULL.
        level: The worst level of all parts. A missing part counts as REDUCED, or as FAILED if it
            is required; so does a part that is itself a FAILED response. A better level than
            the other fields allow is corrected: REDUCED at best with a missing part, STALE at
            best with a degraded one.
        reasons: Why a part is missing or degraded, by name.
        ages: Seconds since a part's answer was fresh, where it has an age.
        sources: Which fallback step answered for a part, where one did.
        retry_after: Seconds after which a retry makes sense: the longest that a part named.
    """

    data: dict[str, Any]
    missing: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    level: Level = Level.FULL
    reasons: dict[str, str] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None

    def __post_init__(self) -> None:
        """Correct a level that is better than what is missing or degraded allows."""
        if self.missing and self.level < Level.REDUCED:
            object.__setattr__(self, "level", Level.REDUCED)
        elif self.degraded and self.level < Level.STALE:
            object.__setattr__(self, "level", Level.STALE)

    @property
    def partial(self) -> bool:
        """Tell whether anything is missing or degraded."""
        return bool(self.missing or self.degraded)

    def to_wire(self) -> dict[str, Any]:
        """Return `{"data": …, "_meta": {"partial", "missing", "degraded", …}}`."""
        return {
            "data": self.data,
            "_meta": {
                "partial": self.partial,
                "missing": self.missing,
                "degraded": self.degraded,
                "level": int(self.level),
                "reasons": self.reasons,
                "ages": self.ages,
                "sources": self.sources,
                "retry_after": self.retry_after,
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "PartialResponse":
        """Return the response that `to_json` wrote.

        Raises:
            KeyError: *document* lacks `data` or a field of `_meta`.
            ValueError: It is no such document, or its level is none of the five.
        """
        try:
            meta = document["_meta"]
            return cls(
                data=document["data"],
                missing=list(meta["missing"]),
                degraded=list(meta["degraded"]),
                level=Level(meta["level"]),
                reasons=dict(meta["reasons"]),
                ages=dict(meta["ages"]),
                sources=dict(meta["sources"]),
                retry_after=meta["retry_after"],
            )
        except (AttributeError, TypeError) as error:
            msg = f"this is no response: {document!r:.200}"
            raise ValueError(msg) from error


def outcome_of(value: object, *, dependency: str | None = None) -> Outcome[Any]:
    """Return *value* as an outcome, unless it is one; that of a `PartialResponse` has its level."""
    if isinstance(value, Outcome):
        return value
    if not isinstance(value, PartialResponse):
        return Outcome(value=value, dependency=dependency)
    why = "; ".join(f"{part}: {reason}" for part, reason in value.reasons.items())
    return Outcome(
        value=value,
        level=value.level,
        reason=why or None,
        dependency=dependency,
    )


def is_full(value: object) -> bool:
    """Tell whether *value* is good enough to be remembered: nothing in it is degraded or missing.

    Anything but an `Outcome` or a `PartialResponse` is. An outcome that has an age is not: its age
    would be lost.
    """
    if isinstance(value, Outcome):
        return not (value.degraded or value.age) and is_full(value.value)
    return not (isinstance(value, PartialResponse) and (value.partial or value.level > Level.FULL))


def oldest(value: object) -> float:
    """Return the seconds since the oldest part of *value* was fresh; 0 if nothing has an age."""
    if isinstance(value, Outcome):
        return max(value.age or 0.0, oldest(value.value))
    return max(value.ages.values(), default=0.0) if isinstance(value, PartialResponse) else 0.0


def assemble(answers: Iterable[PartAnswer]) -> PartialResponse:
    """Return the response that *answers*, one for every part, amount to.

    A part whose own value is a `PartialResponse` brings its missing and degraded parts along,
    under dotted names.
    """
    assembly = _Assembly()
    for answer in answers:
        assembly.add(answer)
    return assembly.response()


def _is_nothing(outcome: Outcome[Any]) -> bool:
    # A response that failed still brings the parts that it has.
    return outcome.level is Level.FAILED and not isinstance(outcome.value, PartialResponse)


class _Assembly:
    """A response in the making."""

    def __init__(self) -> None:
        self._made = PartialResponse(data={})
        self._levels: list[Level] = []
        self._waits: list[float] = []
        self._required_missing = False

    def add(self, answer: PartAnswer) -> None:
        if answer.retry_after is not None:
            self._waits.append(answer.retry_after)
        if answer.outcome is None or _is_nothing(answer.outcome):
            self._miss(answer)
            return
        level = self._place(answer, answer.outcome)
        if level is Level.FAILED:
            self._required_missing |= answer.required
            level = Level.REDUCED
        self._levels.append(level)

    def response(self) -> PartialResponse:
        # The response itself makes REDUCED of FULL or STALE if a part is missing.
        level = max(self._levels, default=Level.FULL)
        if self._required_missing:
            level = Level.FAILED
        return replace(self._made, level=level, retry_after=max(self._waits, default=None))

    def _miss(self, answer: PartAnswer) -> None:
        said = None if answer.outcome is None else answer.outcome.reason
        self._made.missing.append(answer.name)
        self._made.reasons[answer.name] = answer.reason or said or "no reason given"
        self._required_missing |= answer.required

    def _place(self, answer: PartAnswer, outcome: Outcome[Any]) -> Level:
        made, name = self._made, answer.name
        value, level, inside = outcome.value, outcome.level, Level.FULL
        if isinstance(value, PartialResponse):
            self._take_over(name, value)
            inside = value.level
            level = max(level, inside)
            value = value.data
        *path, last = name.split(".")
        target = made.data
        for step in path:
            target = target.setdefault(step, {})
        target[last] = value
        # What is only degraded inside is named there.
        if outcome.level > inside or (outcome.degraded and outcome.source is not None):
            made.degraded.append(name)
            made.reasons[name] = answer.reason or outcome.reason or outcome.source or "degraded"
        if outcome.age is not None:
            made.ages[name] = outcome.age
        if outcome.source is not None:
            made.sources[name] = outcome.source
        return level

    def _take_over(self, name: str, inner: PartialResponse) -> None:
        made = self._made
        made.missing.extend(f"{name}.{part}" for part in inner.missing)
        made.degraded.extend(f"{name}.{part}" for part in inner.degraded)
        made.reasons.update({f"{name}.{part}": why for part, why in inner.reasons.items()})
        made.ages.update({f"{name}.{part}": age for part, age in inner.ages.items()})
        made.sources.update({f"{name}.{part}": step for part, step in inner.sources.items()})
        if inner.retry_after is not None:
            self._waits.append(inner.retry_after)
