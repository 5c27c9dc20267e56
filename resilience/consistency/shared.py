"""What processes share about positions, through the store."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, Self
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.consistency.position import LINE_LENGTH_MAX, LINES_MAX, NUMBER_MAX, Position
from resilience.consistency.token import EVERYWHERE, KEYS_MAX, NAME_LENGTH_MAX, SOURCES_MAX, Token
from resilience.declared import check_order
from resilience.store import Store
from resilience.store.positions import Exchanged, PositionStore, Question, merged

DIGITS: Final = 20
"""Of a number in a record: as many as 2^64 has."""
TIME_DIGITS: Final = 16
"""Of a number of microseconds since the epoch, and of the number of a write, which is < 2^53."""
Time = Annotated[float, Field(allow_inf_nan=False)]
"""In seconds."""
GROUPS_MAX: Final = {"p": SOURCES_MAX, "k": KEYS_MAX}


class Reached(NamedTuple):
    """The number that one line of a record has reached; those known last sort last.

    Attributes:
        at: Fleet time at which it became known.
        kind: `p` for a source, `k` for a key.
        name: Of the source, or of source and key.
        line: Line of history.
        number: How far that line is.
    """

    at: float
    kind: str
    name: str
    line: str
    number: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything committed before fleet time *at* lies before *position* in the primary's log."""

    at: float
    position: Position


class LagOrder(BaseModel):
    """An operator's order: how far the replicas of some databases may lag.

    Attributes:
        seconds: So much; None: whatever they lag is ignored.
        until: Fleet time at which the order ends by itself; None: it does not.
        actor: Who gave it.
        reason: Why.
        since: Fleet time at which it was given.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    seconds: Annotated[Time, Field(ge=0)] | None
    until: Time | None
    actor: str
    reason: str
    since: Time

    @classmethod
    def parse(cls, text: str, *, now: float) -> Self | None:
        """Return the order that *text* stands for; None: it has ended, or another release wrote it.

        Whatever is not certain is no order: without one, replicas may lag less.
        """
        try:
            order = cls.model_validate_json(text)
        except ValidationError:
            return None
        return order if order.until is None or order.until > now else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What others have seen of some databases.

    Attributes:
        now: Fleet time.
        samples: How far the primary was, the oldest first.
        order: The operator's order in force, if there is one.
    """

    now: float
    samples: tuple[Sample, ...]
    order: LagOrder | None


class SharedPositions:
    """Samples of primaries' positions, orders about replicas, and records that many merge into.

    When the store is down every method raises `StoreUnavailableError`; whatever else it holds is no
    error: what cannot be read is left out, or makes the position of its source unknown.
    """

    def __init__(self, store: Store) -> None:
        """Share in *store*; connects to nothing."""
        self._store = store
        self._about = PositionStore(store)

    def exchange(self, source: str, *, sample: Sample | None = None, after: float = 0.0) -> Seen:
        """Share *sample* of *source*, if given, and return what others saw later than *after*.

        It is one exchange with the store. A sample is not kept if there is one of half a second
        before, or a later one; nor if it is of the future. Each is kept for 300 s.
        """
        return _seen(self._store.run(self._exchange(source, sample, after)))

    async def exchange_async(
        self, source: str, *, sample: Sample | None = None, after: float = 0.0
    ) -> Seen:
        """Do the same without blocking the event loop."""
        return _seen(await self._store.run_async(self._exchange(source, sample, after)))

    def _exchange(self, source: str, sample: Sample | None, after: float) -> Question:
        at = None if sample is None else sample.at
        text = "" if sample is None else json.dumps(sample.position.to_json())
        return self._about.exchange(source, at=at, text=text, after=after)

    def merge(self, key: str, token: Token, seconds: float) -> Token:
        """Merge *token* into the record *key*, which lives *seconds* from now, or longer already.

        Returns:
            What the record now stands for: at most 16 sources with 16 lines each and 100 keys. What
            was older makes the position of its source unknown.
        """
        answer = self._store.run(self._about.merge(key, fields_of(token), seconds))
        now, fields = merged(answer)
        return token_of(fields, now=now)

    def load(self, key: str) -> Token:
        """Return what the record *key* stands for; an empty token if there is no record."""
        return self.merge(key, Token(), 0.0)

    def order(self, source: str, order: LagOrder | None) -> None:
        """Give an order for the replicas of *source*, in place of an earlier one; None: end that.

        Raises:
            ConfigurationError: The order has no actor or reason, or ends before it begins.
        """
        if order is not None:
            left = 1.0 if order.until is None else order.until - order.since
            check_order(f"lag of {source}", order.actor, order.reason, left)
        text = None if order is None else order.model_dump_json()
        self._store.run(self._about.order(source, text))

    def sources(self) -> list[str]:
        """Return the sources of which there were samples in the last day, or are orders."""
        names = self._store.run(self._about.sources())
        return sorted(name.decode(errors="replace") for name in names)


def _seen(answer: Any) -> Seen:  # noqa: ANN401 - the script's
    found, samples = Exchanged.parse(answer), []
    for at, text in found.samples:
        with suppress(ValueError, RecursionError):  # somebody else wrote it
            samples.append(Sample(float(at), Position.from_json(json.loads(text))))
    order = LagOrder.parse(found.order, now=found.now) if found.order else None
    return Seen(found.now, tuple(one for one in samples if one.at <= found.now), order)


def fields_of(token: Token) -> dict[str, str]:
    """Return *token* as the fields of a record; see position_merge.lua."""
    fields = {} if token.session is None else {"s": _quoted(token.session)}
    fields |= _lines("p", {_quoted(name): one for name, one in token.positions.items()})
    # The first slash ends the name of the source.
    keys = {"/".join(map(_quoted, name.split("/", 1))): one for name, one in token.keys.items()}
    fields |= _lines("k", keys)
    fields |= {f"n|{_quoted(name)}": f"{one:0{TIME_DIGITS}}" for name, one in token.numbers.items()}
    return fields | {f"u|{_quoted(name)}": _micros(at) for name, at in token.unknown.items()}


def _lines(kind: str, positions: Mapping[str, Position]) -> dict[str, str]:
    return {
        f"{kind}|{name}|{_quoted(line)}": f"{number:0{DIGITS}}{_micros(at)}"
        for name, position in positions.items()
        for line, (number, at) in position.lines.items()
    }


def token_of(fields: Mapping[str, str], *, now: float, most: float = math.inf) -> Token:
    """Return what the *fields* of a record stand for, within the bounds of a token.

    At most so many numbers are in it, those that became known last. For the sources of the others,
    and of what cannot be read, the position is unknown.
    """
    reached: list[Reached] = []
    numbers: dict[str, int] = {}
    unknown: dict[str, float] = {}
    for field, value in fields.items():
        kind, name, line = _names(field)
        digits = value if value.isascii() and value.isdigit() else ""
        match kind, len(digits):
            case "p" | "k", 36 if line and int(digits[:DIGITS]) <= NUMBER_MAX:
                at = int(digits[DIGITS:]) / 1e6
                reached.append(Reached(at, kind, name, line, int(digits[:DIGITS])))
            case "n", 16 if name != EVERYWHERE and int(digits) < 2**53:
                numbers[name] = int(digits)
            case "u", 16:
                unknown[name] = int(digits) / 1e6
            case "p" | "k" | "n" | "u", _:
                unknown[_source(kind, name)] = now
            case _:
                continue
    positions, keys = _newest(reached, most, unknown)
    if len(numbers) > SOURCES_MAX:
        numbers, unknown = {}, {EVERYWHERE: now}
    if len(unknown) > SOURCES_MAX:
        unknown = {EVERYWHERE: max(unknown.values())}
    session = unquote(fields.get("s", ""))[:NAME_LENGTH_MAX] or None
    return Token(session=session, positions=positions, keys=keys, numbers=numbers, unknown=unknown)


def _newest(
    reached: list[Reached], most: float, unknown: dict[str, float]
) -> tuple[dict[str, Position], dict[str, Position]]:
    """Return the positions and keys for which there is room; add the sources of the others."""
    groups: dict[str, dict[str, dict[str, tuple[int, float]]]] = {"p": {}, "k": {}}
    for place, (at, kind, name, line, number) in enumerate(sorted(reached, reverse=True)):
        group = groups[kind]
        room = name in group or len(group) < GROUPS_MAX[kind]
        if place < most and room and len(group.get(name, ())) < LINES_MAX:
            group.setdefault(name, {}).setdefault(line, (number, at))
        else:
            source = _source(kind, name)
            unknown[source] = max(at, unknown.get(source, 0.0))
    positions, keys = (
        {name: Position(lines) for name, lines in group.items()} for group in groups.values()
    )
    return positions, keys


def _names(field: str) -> tuple[str, str, str]:
    """Return the kind, the name and the line of *field*; the line is empty if either is none."""
    kind, _, names = field.partition("|")
    name, line = map(unquote, names.partition("|")[::2])
    good = 0 < len(name) <= NAME_LENGTH_MAX and len(line) <= LINE_LENGTH_MAX
    if kind in {"n", "u"} and not good:
        name = EVERYWHERE
    return kind, name, line if good and line.isprintable() else ""


def _source(kind: str, name: str) -> str:
    source = name.split("/", 1)[0] if kind == "k" else name
    return source if 0 < len(source) <= NAME_LENGTH_MAX else EVERYWHERE


def _micros(at: float) -> str:
    return f"{min(round(at * 1e6), 10**TIME_DIGITS - 1):0{TIME_DIGITS}}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")
