"""The store's part in slots: the leases of a dependency, and the line for them."""

from collections.abc import Sequence

from resilience.store.connection import Store
from resilience.store.script import Script

LEASE_SECONDS = 5.0
"""How long a killed holder keeps its slot: as long as its job stays invisible on a Redis broker. A
living holder may miss four renewals, as in a failover of the store or on a starved host."""
ROUND_SECONDS = 2.0
"""How often a waiting call asks again, which keeps its place in line."""
PLACE_SECONDS = ROUND_SECONDS + 1.0
"""How long a place in line is kept."""


class SlotStore:
    """Leases of slots, by the server's clock. Each step is one exchange; for keys see the scripts.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Keep leases in *store*."""
        self._store = store
        self._take = Script("slot_take")
        self._leave = Script("slot_leave")
        self._renew = Script("slot_renew")

    def take(self, dependency: str, owner: str, slots: int) -> float | None:
        """Take one of *slots*, or keep a place in line for `PLACE_SECONDS`.

        Returns:
            None if a slot was granted, else seconds until the first lease ends unless renewed.
        """
        keys, values = self._taking(dependency, owner, slots)
        answer: int = self._store.run(lambda client: self._take.ask(client, keys, values))
        return None if answer < 0 else answer / 1000

    async def take_async(self, dependency: str, owner: str, slots: int) -> float | None:
        """Do the same as `take` without blocking the event loop."""
        keys, values = self._taking(dependency, owner, slots)
        answer: int = await self._store.run_async(
            lambda client: self._take.ask_async(client, keys, values)
        )
        return None if answer < 0 else answer / 1000

    def doze(self, dependency: str, owner: str, seconds: float) -> None:
        """Wait at most *seconds* until *owner*, which is in line, may try again to take a slot."""
        self._store.wait(*self._block(dependency, owner, seconds), seconds=seconds)

    async def doze_async(self, dependency: str, owner: str, seconds: float) -> None:
        """Do the same as `doze` without blocking the event loop."""
        await self._store.wait_async(*self._block(dependency, owner, seconds), seconds=seconds)

    def leave(self, dependency: str, owner: str, slots: int) -> bool:
        """Give the slot back, or leave the line; return whether the lease was still held."""
        keys, values = self._leaving(dependency, owner, slots)
        return bool(self._store.run(lambda client: self._leave.ask(client, keys, values)))

    async def leave_async(self, dependency: str, owner: str, slots: int) -> bool:
        """Do the same as `leave` without blocking the event loop."""
        keys, values = self._leaving(dependency, owner, slots)
        return bool(
            await self._store.run_async(lambda client: self._leave.ask_async(client, keys, values))
        )

    def renew(self, leases: Sequence[tuple[str, str, int]]) -> list[int]:
        """Renew *leases*, each a dependency, an owner and a number of slots, in one exchange.

        Returns:
            For each: 1 renewed, 2 expired and taken again, 0 expired and no slot is free.
        """
        keys = [self._store.key("slots", dependency, "held") for dependency, _, _ in leases]
        values: list[str | int] = [int(LEASE_SECONDS * 1000)]
        for _, owner, slots in leases:
            values += owner, slots
        answers: list[int] = self._store.run(lambda client: self._renew.ask(client, keys, values))
        return answers

    def _keys(self, dependency: str) -> list[str]:
        return [self._store.key("slots", dependency, part) for part in ("held", "line", "alive")]

    def _taking(self, dependency: str, owner: str, slots: int) -> tuple[list[str], list[str | int]]:
        lease, place = int(LEASE_SECONDS * 1000), int(PLACE_SECONDS * 1000)
        return self._keys(dependency), [owner, slots, lease, place]

    def _leaving(
        self, dependency: str, owner: str, slots: int
    ) -> tuple[list[str], list[str | int]]:
        keys = [*self._keys(dependency), self._store.key("slots", dependency, "wake", "")]
        return keys, [owner, slots, int(PLACE_SECONDS * 1000)]

    def _block(self, dependency: str, owner: str, seconds: float) -> tuple[str, ...]:
        wake = self._store.key("slots", dependency, "wake", owner)
        return "BLPOP", wake, f"{max(0.001, seconds):.3f}"
