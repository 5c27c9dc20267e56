"""The HTTP API of Toxiproxy 2.12: what each request does, and what it is answered.

Source: https://github.com/Shopify/toxiproxy#http-api and its `api.go`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.http import Request, Response, failure
from resilience.chaos.proxy.proxies import Proxies, ProxyOrder
from resilience.chaos.proxy.toxic import Toxic, fields_of

VERSION = "2.12.0"
"""Of Toxiproxy, for clients that ask which API they talk to."""
BROWSER = "Mozilla/"
"""Begin of the User-Agent of browsers: a web page must not steer the proxies of its reader."""


class Api:
    """Answers the requests of clients, one at a time."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._lock = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Do what *request* asks for, and return the answer."""
        if request.headers.get("User-Agent", "").startswith(BROWSER):
            return Response(HTTPStatus.FORBIDDEN, "User agent not allowed\n")
        parts = [unquote(part) for part in request.path.partition("?")[0].split("/")[1:]]
        handlers = ROUTES.get("/".join(["*" if i % 2 else part for i, part in enumerate(parts)]))
        if handlers is None:
            return Response(HTTPStatus.NOT_FOUND, "404 page not found\n")
        if request.method not in handlers:
            return Response(HTTPStatus.METHOD_NOT_ALLOWED)
        async with self._lock:
            try:
                return await handlers[request.method](self, parts[1::2], request.body)
            except ProxyError as error:
                return failure(error)

    async def version(self, _names: list[str], _body: bytes) -> Response:
        """Answer with the version of Toxiproxy whose API this is."""
        return Response(HTTPStatus.OK, {"version": VERSION})

    async def reset(self, _names: list[str], _body: bytes) -> Response:
        """Enable all proxies, and remove all toxics."""
        for proxy in self._proxies:
            await proxy.start()
            proxy.clear()
        return Response(HTTPStatus.NO_CONTENT)

    async def populate(self, _names: list[str], body: bytes) -> Response:
        """Create proxies; existing ones with other addresses are replaced."""
        views: list[dict[str, Any]] = []
        try:
            async for proxy in self._proxies.populate(parse_orders(body)):
                views.append(proxy.view)  # noqa: PERF401 - those before an error are shown, too
        except ProxyError as error:
            return failure(error, proxies=views or None)
        return Response(HTTPStatus.CREATED, {"proxies": views or None})

    async def proxy_list(self, _names: list[str], _body: bytes) -> Response:
        """Show all proxies, by name."""
        return Response(HTTPStatus.OK, {proxy.name: proxy.view for proxy in self._proxies})

    async def proxy_create(self, _names: list[str], body: bytes) -> Response:
        """Create a proxy, with its toxics."""
        proxy = await self._proxies.create(ProxyOrder.parse(parse_json(body)))
        return Response(HTTPStatus.CREATED, proxy.view)

    async def proxy_show(self, names: list[str], _body: bytes) -> Response:
        """Show a proxy with its toxics."""
        return Response(HTTPStatus.OK, self._proxies.get(names[0]).view)

    async def proxy_update(self, names: list[str], body: bytes) -> Response:
        """Change addresses of a proxy, or enable or disable it."""
        proxy = self._proxies.get(names[0])
        order = ProxyOrder.parse({**proxy.view, **fields_of(parse_json(body))})
        await proxy.update(order.listen, order.upstream, enabled=order.enabled)
        return Response(HTTPStatus.OK, proxy.view)

    async def proxy_delete(self, names: list[str], _body: bytes) -> Response:
        """Close a proxy and its connections."""
        await self._proxies.remove(names[0])
        return Response(HTTPStatus.NO_CONTENT)

    async def toxic_list(self, names: list[str], _body: bytes) -> Response:
        """Show the toxics of a proxy."""
        return Response(HTTPStatus.OK, self._proxies.get(names[0]).view["toxics"])

    async def toxic_create(self, names: list[str], body: bytes) -> Response:
        """Add a toxic."""
        proxy = self._proxies.get(names[0])
        toxic = Toxic.parse(parse_json(body))
        proxy.add(toxic)
        return Response(HTTPStatus.OK, toxic.view)

    async def toxic_show(self, names: list[str], _body: bytes) -> Response:
        """Show a toxic."""
        return Response(HTTPStatus.OK, self._proxies.get(names[0]).toxic(names[1]).view)

    async def toxic_update(self, names: list[str], body: bytes) -> Response:
        """Change attributes or the toxicity of a toxic."""
        proxy = self._proxies.get(names[0])
        return Response(HTTPStatus.OK, proxy.change(names[1], parse_json(body)).view)

    async def toxic_delete(self, names: list[str], _body: bytes) -> Response:
        """Remove a toxic."""
        self._proxies.get(names[0]).remove(names[1])
        return Response(HTTPStatus.NO_CONTENT)


Handler = Callable[[Api, list[str], bytes], Awaitable[Response]]
ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "version": {"GET": Api.version},
    "reset": {"POST": Api.reset},
    "populate": {"POST": Api.populate},
    "proxies": {"GET": Api.proxy_list, "POST": Api.proxy_create},
    "proxies/*": {
        "GET": Api.proxy_show,
        "POST": Api.proxy_update,
        "PATCH": Api.proxy_update,
        "DELETE": Api.proxy_delete,
    },
    "proxies/*/toxics": {"GET": Api.toxic_list, "POST": Api.toxic_create},
    "proxies/*/toxics/*": {
        "GET": Api.toxic_show,
        "POST": Api.toxic_update,
        "PATCH": Api.toxic_update,
        "DELETE": Api.toxic_delete,
    },
}
"""By path, `*` for a name, and method."""


def parse_orders(body: bytes) -> list[ProxyOrder]:
    """Return the proxies that a JSON array asks for.

    Raises:
        ProxyError: It is no such array, or a field is missing or of the wrong type.
    """
    orders = parse_json(body)
    if not isinstance(orders, list):
        msg = f"bad request body: a JSON array is needed, got {type(orders).__name__}"
        raise ProxyError(msg)
    return [ProxyOrder.parse(order, f" at proxy {i}") for i, order in enumerate(orders, 1)]


def parse_json(body: bytes) -> object:
    """Return the value of which *body* is the JSON.

    Raises:
        ProxyError: It is no JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"bad request body: {error}"
        raise ProxyError(msg) from error
