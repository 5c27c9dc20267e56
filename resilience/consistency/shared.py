"""What processes share about positions, through the store."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.consistency.position import Position
from resilience.consistency.token import EVERYWHERE, Token
from resilience.declared import check_order
from resilience.store import Store

Time = Annotated[float, Field(allow_inf_nan=False)]
"""In seconds."""


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
        self._orders = store.key("positions", "orders")
        self._sources = store.key("positions", "sources")
        scripts = files("resilience.store")
        self._samples_script = scripts.joinpath("positions.lua").read_text()
        self._record_script = scripts.joinpath("positions_record.lua").read_text()

    def exchange(self, source: str, *, sample: Sample | None = None, after: float = 0.0) -> Seen:
        """Share *sample* of *source*, if given, and return what others saw later than *after*.

        It is one exchange with the store. A sample is not kept if there is one of half a second
        before, or a later one; nor if it is of the future. Each is kept for 300 s.
        """
        at, text = "", ""
        if sample is not None:
            at, text = repr(float(sample.at)), json.dumps(sample.position.to_json())
        keys = [self._store.key("positions", "samples", source), self._sources, self._orders]
        answer = self._run(self._samples_script, keys, [source, at, text, repr(float(after))])
        now, order, samples = _now(answer), _text(answer[2]), []
        for one in map(_text, answer[3]):
            at, _, text = one.partition(" ")
            with suppress(ValueError, RecursionError):  # somebody else wrote it
                samples.append(Sample(float(at), Position.from_json(json.loads(text))))
        known = tuple(one for one in samples if one.at <= now)
        return Seen(now, known, LagOrder.parse(order, now=now) if order else None)

    def merge(self, key: str, token: Token, seconds: float) -> Token:
        """Merge *token* into the record *key*, which lives *seconds* from now, or longer already.

        Returns:
            What the record now stands for: at most 16 sources with 16 lines each and 100 keys. What
            was older makes the position of its source unknown.
        """
        before, whole = b"", token.bounded()
        while True:  # whoever must try again was overtaken by somebody who need not
            text = json.dumps(whole.to_json()).encode()
            kept, now = self._replace(key, before, text, seconds)
            if kept == text:
                return whole
            before, whole = kept, _token(kept, now).merged(token).bounded()

    def load(self, key: str) -> Token:
        """Return what the record *key* stands for; an empty token if there is no record."""
        return _token(*self._replace(key, b"", b"", 0.0))

    def _replace(self, key: str, before: bytes, text: bytes, seconds: float) -> tuple[bytes, float]:
        """Return the record *key* and fleet time, once it is *text* if it was *before*."""
        life = max(1, int(seconds * 1000))
        keys = [self._store.key("positions", "record", key)]
        answer = self._run(self._record_script, keys, [before, text, life])
        return answer[2], _now(answer)

    def order(self, source: str, order: LagOrder | None) -> None:
        """Give an order for the replicas of *source*, in place of an earlier one; None: end that.

        Raises:
            ConfigurationError: The order has no actor or reason, or ends before it begins.
        """
        if order is None:
            self._store.run(lambda client: client.hdel(self._orders, source))
            return
        left = 1.0 if order.until is None else order.until - order.since
        check_order(f"lag of {source}", order.actor, order.reason, left)
        text = order.model_dump_json()
        self._store.run(lambda client: client.hset(self._orders, source, text))

    def sources(self) -> list[str]:
        """Return the sources of which there were samples in the last day, or are orders."""
        names: Any = self._store.run(
            lambda client: {*client.zrange(self._sources, 0, -1), *client.hkeys(self._orders)}
        )
        return sorted(map(_text, names))

    def _run(self, code: str, keys: Sequence[str], values: Sequence[str | bytes | int]) -> Any:  # noqa: ANN401 - the script's
        return self._store.run(lambda client: client.register_script(code)(keys=keys, args=values))


def _token(text: bytes, now: float) -> Token:
    """Return what the record *text* stands for; if it cannot be read, nobody knows what that is."""
    try:
        return Token.from_json(json.loads(text)) if text else Token()
    except (ValueError, RecursionError):
        return Token(unknown={EVERYWHERE: now})


def _now(answer: Sequence[Any]) -> float:
    return int(answer[0]) + int(answer[1]) / 1e6


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
