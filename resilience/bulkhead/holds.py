"""Queues that somebody ordered to be held, for all workers: kept in the store, not broadcast."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Self

from resilience.declared import AHEAD_SECONDS, ORDER_SECONDS_MAX, check_order
from resilience.errors import OrderConflictError, StoreUnavailableError
from resilience.events import Listener, QueueHeld, QueueReleased, announce
from resilience.store import Store

TIME_MAX = 1e12
"""No time in seconds is so late."""
CHANGE = files("resilience.store").joinpath("hold.lua").read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An order to take no jobs.

    Attributes:
        name: Of a dependency, whose queues are all meant, or of one queue.
        until: Fleet time at which it ends by itself.
        actor: Who ordered it.
        reason: Why.
        since: Fleet time of the order, or of an earlier one that it replaced; None: not known.
    """

    name: str
    until: float
    actor: str
    reason: str
    since: float | None = None

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """Return the order that the store keeps; None if it cannot be read."""
        try:
            found = cls(**json.loads(text))
            texts = (found.name, found.actor, found.reason)
            times = (found.until, 0.0 if found.since is None else found.since)
        except (ValueError, TypeError, RecursionError):
            return None
        valid = all(isinstance(one, str) for one in texts)
        valid = valid and all(type(one) in (int, float) and 0 <= one < TIME_MAX for one in times)
        return found if valid else None

    def is_in_force(self, now: float) -> bool:
        """Tell whether it holds at fleet time *now*."""
        return now < self.until and self.ends_in_time(now)

    def ends_in_time(self, now: float) -> bool:
        """Tell whether it ends within a year from *now*, as every order does."""
        return self.until <= now + ORDER_SECONDS_MAX + AHEAD_SECONDS


class Holds:
    """The orders of the fleet, and what this process last heard of them.

    When the store is down that stays in force until it expires.
    """

    def __init__(
        self, store: Store, *, time: Callable[[], float], listeners: Iterable[Listener]
    ) -> None:
        """Keep orders in *store*; connects to nothing.

        Args:
            store: Shared by the fleet.
            time: Asks for fleet time.
            listeners: Who hears of orders.
        """
        self._store = store
        self._key = store.key("holds")
        self._time = time
        self._listeners = listeners
        self._known: Mapping[str, Hold] = {}

    def hold(
        self, name: str, *, seconds: float, actor: str, reason: str, seen: float | None = None
    ) -> Hold:
        """Let no worker take jobs of *name* for *seconds*; a new order replaces an older one.

        Args:
            name: Of a dependency or a queue.
            seconds: How long, more than 0.
            actor: Who orders it.
            reason: Why.
            seen: When the order that *actor* has seen ends, 0 for none; None: whatever there is.

        Raises:
            ConfigurationError: *seconds* is not more than 0, or nobody or no reason is named.
            OrderConflictError: Somebody has given another order than the one *seen*.
            StoreUnavailableError: The order did not reach the fleet.
        """
        check_order(f"hold {name}", actor, reason, seconds)
        before = self.all().get(name)  # this also clears away what has ended
        now = self._time()
        since = now if before is None else before.since
        made = Hold(name=name, until=now + seconds, actor=actor, reason=reason, since=since)
        self._change(name, json.dumps(asdict(made)), seen, now)
        self.look()
        said = QueueHeld(queue=name, worker=None, reason=reason, actor=actor, until=made.until)
        announce(said, self._listeners)
        return made

    def release(self, name: str, *, actor: str, reason: str, seen: float | None = None) -> bool:
        """End the order to hold *name*; tell whether there was one. Raises as `hold`."""
        check_order(f"hold {name}", actor, reason)
        held = self.all().get(name)
        self._change(name, "", seen, self._time())
        self.look()
        if held is None:
            return False
        said = QueueReleased(queue=name, worker=None, reason=reason, actor=actor, until=held.until)
        announce(said, self._listeners)
        return True

    def _change(self, name: str, text: str, seen: float | None, now: float) -> None:
        """Keep *text* as the order about *name*, or none; only if the one *seen* is in force."""
        kept = b""
        if seen is not None:
            read = self._store.read
            kept = read(self._key, lambda client: client.hget(self._key, name), b"") or b""
            found = Hold.parse(kept)
            until = found.until if found is not None and found.is_in_force(now) else 0.0
            if until != seen:
                raise _conflict(name, found)
        values = (name, kept, text, str(int(seen is None)))
        if not self._store.run(lambda client: client.eval(CHANGE, 1, self._key, *values)):
            raise _conflict(name, None)

    def all(self) -> Mapping[str, Hold]:
        """Return the orders in force, by name.

        What has ended is cleared away. An order that cannot be read is not: it may be in force for
        workers of another version. `release` ends it.

        Raises:
            StoreUnavailableError: Nobody knows.
        """
        now = self._time()
        found = self._read()
        over = [name for name, one in found.items() if one.until <= now]
        if over:
            self._store.run(lambda client: client.hdel(self._key, *over))
        self._known = {name: one for name, one in found.items() if one.is_in_force(now)}
        return self._known

    def look(self) -> None:
        """Hear what the orders are, without an error if the store is down."""
        try:
            self._known = self._read()
        except StoreUnavailableError:
            return

    def known(self, name: str, now: float) -> Hold | None:
        """Return the order to hold *name* at fleet time *now*, if there is one; asks nobody."""
        found = self._known.get(name)
        return found if found is not None and found.is_in_force(now) else None

    def in_force(self, now: float) -> list[Hold]:
        """Return the orders in force at fleet time *now* that are known here; asks nobody."""
        return [one for one in self._known.values() if one.is_in_force(now)]

    def _read(self) -> dict[str, Hold]:
        kept: dict[bytes, bytes] = {}
        kept = self._store.read(self._key, lambda client: client.hgetall(self._key), kept)
        orders = {}
        for field, text in kept.items():
            name, order = field.decode(errors="replace"), Hold.parse(text)
            if order is not None and order.name == name:
                orders[name] = order
            else:
                self._store.unreadable("holds", f"no order to hold: {text!r:.150}", name=name)
        return orders


def _conflict(name: str, now: Hold | None) -> OrderConflictError:
    who = f"{now.actor} has given another order since ({now.reason})" if now else "it has ended"
    return OrderConflictError(f"hold {name}: {who}; look again")
