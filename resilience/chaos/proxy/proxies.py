"""The proxies of a server, by name."""

from collections.abc import AsyncIterator, Iterator, Sequence
from http import HTTPStatus
from random import Random
from typing import Annotated, Any, Self

from pydantic import Field

from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.proxy import Proxy
from resilience.chaos.proxy.toxic import Body, Name, Toxic, checked, fields_of

LISTEN = "127.0.0.1:0"
"""Where a proxy listens if nobody says: only this host can reach it."""

Address = Annotated[str, Field(max_length=300)]


class ProxyOrder(Body):
    """What a client asks for when it creates or updates a proxy.

    Attributes:
        toxics: Affect a new proxy from its first connection on; Toxiproxy has no such field.
    """

    name: Name = ""
    listen: Address = LISTEN
    upstream: Address = ""
    enabled: bool = True
    toxics: list[Any] = Field(default_factory=list)

    @classmethod
    def parse(cls, body: object, where: str = "") -> Self:
        """Return what a JSON object asks for; *where* is for the message.

        Raises:
            ProxyError: A field is missing, or of the wrong type.
        """
        fields = fields_of(body)
        order = checked(cls, fields | {"listen": fields.get("listen") or LISTEN})
        for name in ("name", "upstream"):
            if not getattr(order, name):
                msg = f"missing required field: {name}{where}"
                raise ProxyError(msg)
        return order


class Proxies:
    """All proxies of a server. Callers see to it that its coroutines do not overlap."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._by_name: dict[str, Proxy] = {}

    def __iter__(self) -> Iterator[Proxy]:
        """Yield the proxies in the order in which they were created."""
        return iter(self._by_name.values())

    def get(self, name: str) -> Proxy:
        """Return the proxy of that name.

        Raises:
            ProxyError: There is none.
        """
        if name not in self._by_name:
            msg = "proxy not found"
            raise ProxyError(msg, HTTPStatus.NOT_FOUND)
        return self._by_name[name]

    async def create(self, order: ProxyOrder) -> Proxy:
        """Return a new proxy, which listens if it is enabled.

        Raises:
            ProxyError: The name exists, a toxic or an address is wrong, or it cannot listen there.
        """
        if order.name in self._by_name:
            msg = "proxy already exists"
            raise ProxyError(msg, HTTPStatus.CONFLICT)
        proxy = Proxy(order.name, order.listen, order.upstream, self._random)
        for toxic in order.toxics:
            proxy.add(Toxic.parse(toxic))
        if order.enabled:
            await proxy.start()
        self._by_name[order.name] = proxy
        return proxy

    async def populate(self, orders: Sequence[ProxyOrder]) -> AsyncIterator[Proxy]:
        """Yield a proxy for each of *orders*: the existing one if its addresses are the same.

        Raises:
            ProxyError: As in `create`; the proxies yielded before stay.
        """
        for order in orders:
            existing = self._by_name.get(order.name)
            if existing and not await existing.differs(order.listen, order.upstream):
                yield existing
                continue
            if existing:
                await self.remove(order.name)
            yield await self.create(order)

    async def remove(self, name: str) -> None:
        """Close a proxy and its connections, and forget it.

        Raises:
            ProxyError: There is none of that name.
        """
        await self.get(name).stop()
        del self._by_name[name]

    async def close(self) -> None:
        """Close all proxies and their connections."""
        for proxy in self:
            await proxy.stop()
