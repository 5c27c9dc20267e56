"""What circuits do now, why they opened, and what became of them before."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from resilience.breaker import Breaker
from resilience.breaker.state import TIME_MAX
from resilience.ledger.redaction import hide_in_text
from resilience.monitor.rows import breakers_of
from resilience.store.fleet import AGAIN, history_key
from resilience.tasks.resilience import Resilience

OPENED = "CircuitOpened"
TEXTS = ("event", "reason", "error", "actor", "order", "scope")
NUMBERS = ("at", "calls", "failed", "slow", "seconds", "probes")
HISTORY = ("at", *TEXTS, *NUMBERS[1:])
"""What is known of a change: times are fleet time, and what does not apply is None."""


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
    histories = _histories(adopted, breakers)
    return [_row(one, histories[name]) for name, one in breakers.items()]


def history_rows(adopted: Resilience, name: str) -> list[dict[str, Any]]:
    """Return the last changes of the circuit of *name*, newest first; `HISTORY` names the values.

    A circuit that opens again and again without closing has two rows: the first time and the last.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    return _histories(adopted, [name])[name]


def _row(one: Breaker, history: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    state, circuit = one.state, one.circuit
    left = one.seconds_left
    causes = []
    if circuit.attempt:
        for row in history:  # newest first
            if row["event"] != OPENED:
                break
            causes.append(row)
    cause = causes[0] if causes else {}
    since = circuit.generation / 1e6 if circuit.attempt or circuit.manual else None
    return {
        "dependency": one.name,
        "state": str(state),
        "seconds_left": None if left is None else round(left, 1),
        "opened": circuit.attempt,
        "actor": circuit.actor or None,
        "reason": circuit.reason or None,
        "version": circuit.generation,
        "unreadable": one.unreadable,
        "since": causes[-1]["at"] if causes else since,
        "why": cause.get("reason"),
        "error": next((row["error"] for row in causes if row["error"]), None),
        **{name: cause.get(name) for name in ("calls", "failed", "slow")},
    }


def _histories(adopted: Resilience, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    store, names = adopted.store, list(names)
    keys = [store.key(*history_key(name)) for name in names]
    found = store.run(lambda client: _lists(client, keys))
    redact = adopted.settings.redact
    return {
        name: [row for text in texts if (row := _read(text, redact)) is not None]
        for name, texts in zip(names, found, strict=True)
    }


def _lists(client: Any, keys: Iterable[str]) -> list[list[bytes]]:  # noqa: ANN401 - redis-py's
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.lrange(key, 0, -1)
        found = pipe.execute(raise_on_error=False)
    return [one if isinstance(one, list) else [] for one in found]  # another type is not ours


def _read(text: bytes, redact: Iterable[str]) -> dict[str, Any] | None:
    """Return a change that the store keeps; None if it cannot be read."""
    try:
        kept = json.loads(text.removeprefix(AGAIN.encode()))
        row = {name: kept.get(name) for name in HISTORY}
    except (ValueError, AttributeError, RecursionError):
        return None
    for name in TEXTS:
        text_in = row[name]
        row[name] = hide_in_text(text_in, redact) if isinstance(text_in, str) else None
    for name in NUMBERS:
        if type(row[name]) not in (int, float) or not abs(row[name]) < TIME_MAX:
            row[name] = None
    return row if row["event"] and row["at"] is not None else None
