"""The store half of slots: leases of a dependency, and the line for them."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis.asyncio

from resilience.store.connection import Store

LEASE_SECONDS = 5.0
"""How long a killed holder keeps its slot: as long as its job stays invisible on a Redis broker.
Long enough to miss four beats, as in a failover of the store or on a starved host."""
ROUND_SECONDS = 2.0
"""Who waits says so that often; a place in line is kept for a second more."""
PLACE_SECONDS = ROUND_SECONDS + 1.0


class SlotStore:
    """Leases of slots by the server's clock; each step is one exchange. See the scripts for keys.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Keep leases in *store*."""
        self._store = store
        source = files("resilience.store")
        self._take_code = source.joinpath("slot_take.lua").read_text()
        self._leave_code = source.joinpath("slot_leave.lua").read_text()
        self._take = store.client.register_script(self._take_code)
        self._leave = store.client.register_script(self._leave_code)
        self._renew = store.client.register_script(source.joinpath("slot_renew.lua").read_text())

    def take(self, dependency: str, owner: str, slots: int) -> float | None:
        """Take one of *slots*, or keep a place in line for `PLACE_SECONDS`.

        Returns:
            None if it was granted, else seconds until the first lease ends if nobody renews it.
        """
        keys, values = self._taking(dependency, owner, slots)
        answer: int = self._store.run(lambda _: self._take(keys=keys, args=values))
        return None if answer < 0 else answer / 1000

    async def take_async(self, dependency: str, owner: str, slots: int) -> float | None:
        """Do the same as `take` without blocking the event loop."""
        keys, values = self._taking(dependency, owner, slots)
        answer: int = await self._run_async(self._take_code, keys, values)
        return None if answer < 0 else answer / 1000

    def doze(self, dependency: str, owner: str, seconds: float) -> None:
        """Wait at most *seconds* until *owner*, who stands in line, may have a slot."""
        self._store.wait(*self._block(dependency, owner, seconds), seconds=seconds)

    async def doze_async(self, dependency: str, owner: str, seconds: float) -> None:
        """Do the same as `doze` without blocking the event loop."""
        await self._store.wait_async(*self._block(dependency, owner, seconds), seconds=seconds)

    def leave(self, dependency: str, owner: str, slots: int) -> bool:
        """Give the slot back, or leave the line; return whether the lease was still held."""
        keys, values = self._leaving(dependency, owner, slots)
        return bool(self._store.run(lambda _: self._leave(keys=keys, args=values)))

    async def leave_async(self, dependency: str, owner: str, slots: int) -> bool:
        """Do the same as `leave` without blocking the event loop."""
        keys, values = self._leaving(dependency, owner, slots)
        return bool(await self._run_async(self._leave_code, keys, values))

    def renew(self, leases: Sequence[tuple[str, str, int]]) -> list[int]:
        """Renew *leases*, each a dependency, an owner and a number of slots, in one exchange.

        Returns:
            For each: 1 renewed, 2 was gone and is taken again, 0 is gone and there is no room.
        """
        keys = [self._store.key("slots", dependency, "held") for dependency, _, _ in leases]
        values: list[str | int] = [int(LEASE_SECONDS * 1000)]
        for _, owner, slots in leases:
            values += owner, slots
        answers: list[int] = self._store.run(lambda _: self._renew(keys=keys, args=values))
        return answers

    async def _run_async(self, code: str, keys: list[str], values: list[str | int]) -> int:
        async def exchange(client: redis.asyncio.Redis) -> Any:  # noqa: ANN401 - by script
            return await client.register_script(code)(keys=keys, args=values)

        return int(await self._store.run_async(exchange))

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
