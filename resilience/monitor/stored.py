"""What the store may hold: each kind of key, and what is wrong with values that are not ours."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from importlib.resources import files
from typing import Any, Final, NamedTuple

from resilience.breaker import Breaker, BreakerPolicy
from resilience.breaker.state import Circuit
from resilience.bulkhead.holds import Hold
from resilience.consistency.position import Position
from resilience.consistency.records import RECORD
from resilience.consistency.shared import LagOrder
from resilience.consistency.token import Token
from resilience.errors import NoStoredAnswerError
from resilience.flags.document import Document
from resilience.flags.reports import Report
from resilience.monitor.circuits import Change
from resilience.monitor.metrics import NAMES_MAX
from resilience.store.flags import COUNT_MAX
from resilience.store.fleet import AGAIN, Kept
from resilience.store.slots import LEASE_SECONDS
from resilience.tasks.resilience import Resilience

REPAIR: Final = files("resilience.store").joinpath("repair.lua").read_text()
DIGITS: Final = re.compile(rb"\d{1,16}")
SERIES: Final = re.compile(rb"\[.+\]|born", re.DOTALL)
PAIR: Final = re.compile(rb"\d{1,15}\|\d{1,15}")


class Value(NamedTuple):
    """One value in the store: a string, a field of a hash, or an element.

    Attributes:
        name: The field, the member or the index; empty for a string.
        value: Its text; the score of a member.
    """

    name: bytes
    value: bytes


Check = Callable[[Resilience, Value], object]
"""Returns False or None, or raises ValueError, if the value is none of ours."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key; `*` in its *pattern* stands for a name."""

    pattern: str
    type: str
    check: Check = lambda _app, _value: True


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What is wrong in the store, and what a repair does.

    Attributes:
        key: In the namespace.
        name: Of the value; empty: all of it.
        wrong: Why nobody can read it.
        repair: `delete the key`, `delete the value`, or `rewrite without it`; None: it stays.
        repaired: Whether that is done.
    """

    key: str
    name: str
    wrong: str
    repair: str | None
    repaired: bool = False


def _circuit(app: Resilience, one: Value) -> bool:
    kept = Kept.parse(one.value)
    breaker = app.breaker(name) if (name := one.name.decode()) in app.dependencies else None
    policy = breaker.policy if isinstance(breaker, Breaker) else BreakerPolicy()
    plausible = Circuit.of(kept).is_plausible(policy, app.fleet_time())
    return plausible and Circuit.can_read(kept)


def _hold(app: Resilience, one: Value) -> bool:
    order, now = Hold.parse(one.value), app.fleet_time()
    return order is not None and order.name.encode() == one.name and order.ends_in_time(now)


def _document(app: Resilience, one: Value) -> bool:
    wrong: list[str] = []
    Document.parse(one.value, now=app.fleet_time(), note=lambda _, name: wrong.append(name))
    if wrong:
        msg = f"unreadable entries: {', '.join(wrong)}"
        raise ValueError(msg)
    return True


def _number(_: Resilience, one: Value) -> bool:
    return 0 <= float(one.value) < COUNT_MAX


def _count(app: Resilience, one: Value) -> bool:
    named = SERIES.fullmatch(one.name) and len(one.name) <= NAMES_MAX
    return bool(named and (PAIR.fullmatch(one.value) or _number(app, one)))


def _digits(_: Resilience, one: Value) -> bool:
    return DIGITS.fullmatch(one.value) is not None


def _object(_: Resilience, one: Value) -> bool:
    return isinstance(json.loads(one.value), dict)


def _lease(app: Resilience, one: Value) -> bool:
    return float(one.value) <= (app.fleet_time() + 10 * LEASE_SECONDS) * 1000


def _ledger(_: Resilience, one: Value) -> bool:
    kept = json.loads(one.value)
    return isinstance(kept, dict) and all(isinstance(kept.get(n), str) for n in ("id", "place"))


def _member(app: Resilience, one: Value) -> object:
    if one.name == b"members":
        return _digits(app, one)
    return Token.from_json(json.loads(one.value))


def _report(_app: Resilience, one: Value) -> object:
    at, _, text = one.value.partition(b"|")
    return DIGITS.fullmatch(at) and Report.model_validate_json(text)


def _sample(_: Resilience, one: Value) -> object:
    return Position.from_json(json.loads(one.name.partition(b" ")[2]))


def _change(_: Resilience, one: Value) -> object:
    return Change.model_validate_json(one.value.removeprefix(AGAIN.encode()))


def _write(app: Resilience, one: Value) -> object:
    return RECORD.fullmatch(one.value) if one.name.startswith(b"k:") else _digits(app, one)


def _answer(app: Resilience, one: Value) -> object:
    return app.answers.decode(one.value, 0)


KINDS: Final = (
    Kind("circuits", "hash", _circuit),
    Kind("told", "string"),
    Kind("flags", "string", _document),
    Kind("windows", "hash", lambda _app, one: len(one.value) >= 56),  # noqa: PLR2004 - HEAD of pulse.lua
    Kind("counted:*", "string", _digits),
    Kind("totals", "hash", _count),
    Kind("answers", "hash", _count),
    Kind("exemplars", "hash", _object),
    Kind("history", "hash", lambda app, one: DIGITS.fullmatch(one.name) and _object(app, one)),
    Kind("history:*", "list", _change),
    Kind("probes:*", "hash", _digits),
    Kind("slots:*:held", "zset", _lease),
    Kind("slots:*:line", "zset"),
    Kind("slots:*:alive", "zset", _lease),
    Kind("slots:*:wake:*", "list"),
    Kind("flow:*", "hash", _digits),
    Kind("holds", "hash", _hold),
    Kind("trial:*", "hash", _number),
    Kind("chords:*", "hash", _member),
    Kind("writes:*", "hash", _write),
    Kind("ledgers", "hash", _ledger),
    Kind("reports", "hash", _report),
    Kind("leader", "string"),
    Kind("answer:*", "string", _answer),
    Kind("aside:*", "string", _answer),
    Kind("positions:samples:*", "zset", _sample),
    Kind("positions:sources", "zset"),
    Kind("positions:orders", "hash", lambda _app, one: LagOrder.model_validate_json(one.value)),
    Kind("positions:record:*", "string", lambda _app, one: Token.from_json(json.loads(one.value))),
    Kind("spared:*", "string"),
    Kind("unserved", "hash", _digits),
    Kind("fan:due:*", "zset"),
    Kind("fan:*:news", "stream"),
    Kind("fan:*:done", "stream"),
    Kind("fan:*", "hash"),
)
"""All kinds; the first whose pattern fits a key is the key's."""
_PATTERNS: Final = [(re.compile(translate(kind.pattern)), kind) for kind in KINDS]


def kind_of(key: str) -> Kind | None:
    """Return the kind of *key*, which is without the namespace; None: it is none of ours."""
    return next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(key)), None)


def unreadable(app: Resilience, *, repair: bool = False) -> Iterator[Unreadable]:
    """Look at every key of the namespace, and yield what cannot be read; *repair* it if told so.

    A repair deletes only what is still as it was found. A key of no known kind stays, as another
    version of this library may use it.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses.
    """
    begin = app.store.key("")
    keys: Any = app.store.run(lambda client: [*client.scan_iter(f"{begin}*", count=1000)])
    for raw in sorted({*keys}):
        key = raw.decode(errors="replace").removeprefix(begin)
        kind, found = kind_of(key), app.store.run(partial(_type_of, raw)).decode()
        if kind is None:
            yield Unreadable(key, "", "a key of no kind that this version knows", None)
        elif found not in {kind.type, "none"}:
            done = repair and _repaired(app, raw, found)
            yield Unreadable(key, "", f"a {found} instead of a {kind.type}", "delete the key", done)
        elif found != "none":
            for one in app.store.run(partial(_values, raw, found)):
                if wrong := _wrong(app, kind, one):
                    yield _mended(app, raw, key, kind, one, wrong, repair=repair)


def _mended(
    app: Resilience, raw: bytes, key: str, kind: Kind, one: Value, wrong: str, *, repair: bool
) -> Unreadable:
    name = one.name.decode(errors="replace")
    if kind.pattern == "flags" and wrong.startswith("unreadable entries"):
        if repair:
            app.flags.change(lambda document, _: document)
        return Unreadable(key, name, wrong, "rewrite without it", repair)
    done = repair and _repaired(app, raw, kind.type, one)
    what = "delete the key" if kind.type == "string" else "delete the value"
    return Unreadable(key, name, wrong, what, done)


def _wrong(app: Resilience, kind: Kind, one: Value) -> str | None:
    """Return what is wrong with a value; None: nothing is."""
    try:
        found = kind.check(app, one)
        if found is not None and found is not False:
            return None
        why = "nothing that this library writes there"
    except (ValueError, OverflowError, RecursionError, TypeError, NoStoredAnswerError) as error:
        why = str(error).splitlines()[0]
    return f"{why[:200]}: {one.value!r:.100}" if not why.startswith("unreadable") else why


def _type_of(key: bytes, client: Any) -> bytes:  # noqa: ANN401 - redis-py's
    found: bytes = client.type(key)
    return found


def _values(key: bytes, kind: str, client: Any) -> list[Value]:  # noqa: ANN401 - redis-py's
    match kind:
        case "string":
            return [Value(b"", client.get(key) or b"")]
        case "hash":
            return [Value(*pair) for pair in client.hgetall(key).items()]
        case "list":
            return [Value(b"%d" % i, one) for i, one in enumerate(client.lrange(key, 0, -1))]
        case "zset":
            members = client.zrange(key, 0, -1, withscores=True)
            return [Value(member, repr(score).encode()) for member, score in members]
        case _:  # streams, whose type says all
            return []


def _repaired(app: Resilience, key: bytes, kind: str, one: Value | None = None) -> bool:
    values = [kind] if one is None else [kind, *one]
    return bool(app.store.run(lambda client: client.eval(REPAIR, 1, key, *values)))
