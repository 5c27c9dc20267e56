"""An answer made of parts, of which some may be missing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resilience.levels import Level
from resilience.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAnswer:
    """What became of one part.

    Attributes:
        name: The part; parts of a nested fan-out have dotted names.
        outcome: Its answer; None: it is missing.
        reason: Why it is missing or degraded.
        retry_after: Seconds after which its dependency says to come back.
        required: Whether the whole response fails without it.
    """

    name: str
    outcome: Outcome[Any] | None
    reason: str | None = None
    retry_after: float | None = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialResponse:
    """What a fan-out could deliver by its deadline, and what it could not.

    Attributes:
        data: Values of the parts that answered, by name; parts of a nested fan-out in a
            mapping of their own.
        missing: Parts without an answer.
        degraded: Parts whose answer is not FULL.
        level: The worst level of the parts present; FAILED if a required part is missing, and
            REDUCED if none is required and none is present.
        reasons: Why a part is missing or degraded, by name.
        ages: Seconds since a part's answer was fresh, where it has an age.
        retry_after: Seconds after which a retry makes sense, if a missing part said so.
    """

    data: dict[str, Any]
    missing: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    level: Level = Level.FULL
    reasons: dict[str, str] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    retry_after: float | None = None

    @property
    def partial(self) -> bool:
        """Tell whether anything is missing or degraded."""
        return bool(self.missing or self.degraded)

    def to_json(self) -> dict[str, Any]:
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
                "retry_after": self.retry_after,
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "PartialResponse":
        """Return the response that `to_json` wrote.

        Raises:
            KeyError: *document* lacks `data` or a field of `_meta`.
            ValueError: Its level is none of the five.
        """
        meta = document["_meta"]
        return cls(
            data=document["data"],
            missing=list(meta["missing"]),
            degraded=list(meta["degraded"]),
            level=Level(meta["level"]),
            reasons=dict(meta["reasons"]),
            ages=dict(meta["ages"]),
            retry_after=meta["retry_after"],
        )


def assemble(answers: Iterable[PartAnswer]) -> PartialResponse:
    """Return the response that *answers*, one for every part, amount to.

    A part whose own value is a `PartialResponse` brings its missing and degraded parts along,
    under dotted names.
    """
    made = PartialResponse(data={})
    levels: list[Level] = []
    required_missing = False
    waits: list[float] = []
    for answer in answers:
        if answer.retry_after is not None:
            waits.append(answer.retry_after)
        if answer.outcome is None:
            made.missing.append(answer.name)
            made.reasons[answer.name] = answer.reason or "no reason given"
            required_missing |= answer.required
            continue
        levels.append(_place(made, answer.name, answer.outcome))
    if required_missing:
        level = Level.FAILED
    else:
        level = max(levels, default=Level.REDUCED if made.missing else Level.FULL)
    return PartialResponse(
        data=made.data,
        missing=made.missing,
        degraded=made.degraded,
        level=level,
        reasons=made.reasons,
        ages=made.ages,
        retry_after=max(waits, default=None),
    )


def _place(made: PartialResponse, name: str, outcome: Outcome[Any]) -> Level:
    value, level = outcome.value, outcome.level
    if isinstance(value, PartialResponse):
        inner = value
        made.missing.extend(f"{name}.{part}" for part in inner.missing)
        made.degraded.extend(f"{name}.{part}" for part in inner.degraded)
        made.reasons.update({f"{name}.{part}": why for part, why in inner.reasons.items()})
        made.ages.update({f"{name}.{part}": age for part, age in inner.ages.items()})
        value, level = inner.data, max(level, inner.level)
    *path, last = name.split(".")
    target = made.data
    for step in path:
        target = target.setdefault(step, {})
    target[last] = value
    if outcome.degraded:
        made.degraded.append(name)
        made.reasons[name] = outcome.reason or outcome.source or "degraded"
    if outcome.age is not None:
        made.ages[name] = outcome.age
    return level
