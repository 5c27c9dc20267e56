"""What circuits do now, why they opened, and what became of them before."""

from collections.abc import Collection, Iterable
from itertools import takewhile
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from resilience.breaker import Breaker
from resilience.breaker.state import TIME_MAX
from resilience.monitor.rows import breakers_of
from resilience.store.fleet import AGAIN, history_key
from resilience.tasks.resilience import Resilience
from resilience.text import hide_in_text

Seconds = Annotated[float, Field(ge=0, le=TIME_MAX)]


class Change(BaseModel):
    """What the store keeps of a change of a circuit; what does not apply is None.

    Attributes:
        at: When, in fleet time.
        event: Name of the event that was announced, whose fields the others are.
    """

    at: Seconds
    event: str
    order: str | None = None
    reason: str | None = None
    error: str | None = None
    actor: str | None = None
    scope: str | None = None
    seconds: Seconds | None = None
    calls: int | None = None
    failed: int | None = None
    slow: int | None = None
    probes: int | None = None


def breaker_rows(adopted: Resilience) -> list[dict[str, Any]]:
    """Return what the fleet has agreed on about each circuit.

    Each row has `dependency`, `state`, `seconds_left` (until an order or the open time ends),
    `opened` (times in a row), `actor` and `reason` of an order, `version` (of the circuit),
    `unreadable` (the store keeps what is no circuit), and of an open or half-open one what opened
    it: `since`, `why`, `calls`, `failed`, `slow`, `error`; None where that is not known.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    breakers = breakers_of(adopted)
    changes = histories(adopted, breakers)
    return [_row(breaker, changes[name]) for name, breaker in breakers.items()]


def history_of(adopted: Resilience, name: str) -> list[Change]:
    """Return the last changes of the circuit of *name*, newest first.

    One that opened again and again without closing is there twice: the first time and the last.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    return histories(adopted, [name])[name]


def histories(adopted: Resilience, names: Collection[str]) -> dict[str, list[Change]]:
    """Return the last changes of the circuits of *names*. Raises as `history_of`."""
    store, redact = adopted.store, adopted.settings.redact

    def ask(client: Any) -> list[Any]:  # noqa: ANN401 - redis-py's
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(store.key(*history_key(name)), 0, -1)
            return list(pipe.execute(raise_on_error=False))

    # What is no list, but an error, is another program's key.
    kept = (texts if isinstance(texts, list) else [] for texts in store.run(ask))
    return {
        name: [change for text in texts for change in _read(text, redact)]
        for name, texts in zip(names, kept, strict=True)
    }


def _row(breaker: Breaker, history: Iterable[Change]) -> dict[str, Any]:
    state, circuit, left = breaker.state, breaker.circuit, breaker.seconds_left
    opened = takewhile(lambda change: change.event == "CircuitOpened", history)
    causes = list(opened) if circuit.attempt else []
    cause = causes[0] if causes else None
    changed = circuit.generation / 1e6 if circuit.attempt or circuit.manual else None
    return {
        "dependency": breaker.name,
        "state": str(state),
        "seconds_left": None if left is None else round(left, 1),
        "opened": circuit.attempt,
        "actor": circuit.actor or None,
        "reason": circuit.reason or None,
        "version": circuit.generation,
        "unreadable": breaker.unreadable,
        "since": causes[-1].at if causes else changed,
        "why": cause and cause.reason,
        "error": next((change.error for change in causes if change.error), None),
        **{name: cause and getattr(cause, name) for name in ("calls", "failed", "slow")},
    }


def _read(text: bytes, redact: Collection[str]) -> list[Change]:
    """Return the change that the store keeps as *text*, or nothing if it cannot be read."""
    try:
        change = Change.model_validate_json(text.removeprefix(AGAIN.encode()))
    except ValidationError:
        return []
    error = change.error and hide_in_text(change.error, redact)
    return [change.model_copy(update={"error": error})]
