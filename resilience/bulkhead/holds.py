"""Queues that somebody ordered to be held, for all workers: kept in the store, not broadcast."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from resilience.declared import check_order
from resilience.errors import StoreUnavailableError
from resilience.events import Listener, QueueHeld, QueueReleased, announce
from resilience.store import Store


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
        return found if valid and all(type(one) in (int, float) for one in times) else None


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

    def hold(self, name: str, *, seconds: float, actor: str, reason: str) -> Hold:
        """Let no worker take jobs of *name* for *seconds*; a new order replaces an older one.

        Raises:
            ConfigurationError: *seconds* is not more than 0, or nobody or no reason is named.
            StoreUnavailableError: The order did not reach the fleet.
        """
        check_order(f"hold {name}", actor, reason, seconds)
        before = self.all().get(name)  # this also clears away what has ended
        now = self._time()
        since = now if before is None else before.since
        made = Hold(name=name, until=now + seconds, actor=actor, reason=reason, since=since)
        self._store.run(lambda client: client.hset(self._key, name, json.dumps(asdict(made))))
        self.look()
        said = QueueHeld(queue=name, worker=None, reason=reason, actor=actor, until=made.until)
        announce(said, self._listeners)
        return made

    def release(self, name: str, *, actor: str, reason: str) -> bool:
        """End the order to hold *name*; tell whether there was one. Raises as `hold`."""
        check_order(f"hold {name}", actor, reason)
        held = self.all().get(name)
        self._store.run(lambda client: client.hdel(self._key, name))
        self.look()
        if held is None:
            return False
        said = QueueReleased(queue=name, worker=None, reason=reason, actor=actor, until=held.until)
        announce(said, self._listeners)
        return True

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
        self._known = {name: one for name, one in found.items() if name not in over}
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
        return found if found is not None and now < found.until else None

    def in_force(self, now: float) -> list[Hold]:
        """Return the orders in force at fleet time *now* that are known here; asks nobody."""
        return [one for one in self._known.values() if now < one.until]

    def _read(self) -> dict[str, Hold]:
        kept: dict[Any, Any] = self._store.run(lambda client: client.hgetall(self._key))
        orders = map(Hold.parse, kept.values())
        return {one.name: one for one in orders if one is not None}
