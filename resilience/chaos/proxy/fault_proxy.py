"""A TCP proxy that injects network faults between clients and one server."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping
from http import HTTPStatus
from random import Random
from typing import Any, Self

from resilience.chaos.proxy.addresses import LISTEN, join_address, listen_on, resolve, split_address
from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.link import CHUNK_BYTES, Link, Streams
from resilience.chaos.proxy.toxic import Direction, Toxic
from resilience.text import get_logger

logger = get_logger(__name__)
TURNS = 5
"""In so many turns the event loop accepts a connection, aborts it, and closes its socket."""

CALL_SECONDS = 30.0
"""Longest wait for the proxy's thread."""
CONNECT_SECONDS = 10.0
"""Longest wait for the upstream to accept a connection."""


class FaultProxy:
    """Forwards data between clients and a server, and disturbs it as the toxics say.

    The proxy runs in a thread of its own from its construction until `close`, or the end of a
    `with` block. All methods may be called from any thread; methods that change the proxy raise a
    RuntimeError once it is closed.

        with FaultProxy("127.0.0.1:6379") as proxy:
            client = redis.Redis(port=proxy.port)
            proxy.add("latency", latency=500)
            ...
            proxy.remove("latency_downstream")

    Attributes:
        name: Name of the proxy in messages and in the HTTP API.
        listen: `host:port` where the proxy listens; kept while the proxy is disabled.
        upstream: `host:port` of the server.
        toxics: The toxics by name, in the order in which they were added.
    """

    def __init__(
        self,
        upstream: str,
        *,
        listen: str = LISTEN,
        toxics: Iterable[Mapping[str, Any]] = (),
        seed: int | None = None,
        name: str = "proxy",
        enabled: bool = True,
    ) -> None:
        """Start the proxy's thread, and listen if *enabled*.

        Args:
            upstream: `host:port` of the server.
            listen: `host:port` where the proxy listens; port 0 picks a free port.
            toxics: Toxics that affect the first connection already, in the form of Toxiproxy's
                API: `{"type": "latency", "attributes": {"latency": 500}}`.
            seed: Seed of toxicity, jitter and sizes; None: different each time.
            name: Name of the proxy.
            enabled: Whether to listen at once.

        Raises:
            ProxyError: An address or a toxic is wrong, or the proxy cannot listen at *listen*.
        """
        for address, what in ((listen, "listen"), (upstream, "upstream")):
            split_address(address, what)
        self.name, self.listen, self.upstream = name, listen, upstream
        self.toxics: dict[str, Toxic] = {}
        self._random = Random(seed)  # noqa: S311 - no secret
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: dict[Link, None] = {}  # in order, for the sake of the seed
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fault-proxy", daemon=True
        )
        self._thread.start()
        try:
            for toxic in toxics:
                self.add_toxic(toxic)
            if enabled:
                self.enable()
        except ProxyError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Host on which the proxy listens."""
        return split_address(self.listen, "listen")[0]

    @property
    def port(self) -> int:
        """Port on which the proxy listens; kept while the proxy is disabled."""
        return split_address(self.listen, "listen")[1]

    @property
    def view(self) -> dict[str, Any]:
        """The JSON object that clients of the API see; its upstream toxics come first."""
        toxics = sorted(self.toxics.values(), key=lambda toxic: toxic.stream, reverse=True)
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self._server is not None,
            "toxics": [toxic.view for toxic in toxics],
        }

    def add(
        self,
        kind: str,
        /,
        *,
        stream: str = "downstream",
        name: str = "",
        toxicity: float = 1.0,
        **attributes: int,
    ) -> str:
        """Add a toxic for existing and new connections, and return its name.

        Args:
            kind: Type of the toxic, such as `latency`.
            stream: `downstream`, from the server to the client, or `upstream`.
            name: Name of the toxic; by default type and stream, such as `latency_downstream`.
            toxicity: Share of the connections that the toxic affects, in [0, 1].
            **attributes: Attributes of this type of toxic; docs/proxy.md lists them.

        Raises:
            ProxyError: The type, the stream or an attribute is wrong, or the name is taken.
        """
        body = {"type": kind, "stream": stream, "name": name, "toxicity": toxicity}
        return self.add_toxic({**body, "attributes": attributes}).name

    def add_toxic(self, body: object) -> Toxic:
        """Add the toxic that a JSON object describes, as `add` does, and return the toxic."""
        toxic = Toxic.parse(body)
        with self._lock:
            if toxic.name in self.toxics:
                msg = "toxic already exists"
                raise ProxyError(msg, HTTPStatus.CONFLICT)
            self._apply({**self.toxics, toxic.name: toxic})
        return toxic

    def update(self, name: str, *, toxicity: float | None = None, **attributes: int) -> None:
        """Change a toxic, also for existing connections; values that are not given stay.

        Raises:
            ProxyError: There is no toxic of that name, or a value is wrong.
        """
        self.update_toxic(name, {"toxicity": toxicity, "attributes": attributes})

    def update_toxic(self, name: str, body: object) -> Toxic:
        """Change a toxic as a JSON object says, as `update` does, and return the toxic."""
        with self._lock:
            toxic = self.toxic(name).updated(body)
            self._apply({**self.toxics, name: toxic})
        return toxic

    def toxic(self, name: str) -> Toxic:
        """Return the toxic called *name*.

        Raises:
            ProxyError: There is no toxic of that name.
        """
        if name not in self.toxics:
            msg = "toxic not found"
            raise ProxyError(msg, HTTPStatus.NOT_FOUND)
        return self.toxics[name]

    def remove(self, name: str) -> None:
        """Remove a toxic; the data that the toxic held is delivered, in order.

        Raises:
            ProxyError: There is no toxic of that name.
        """
        with self._lock:
            toxics = {**self.toxics}
            del toxics[self.toxic(name).name]
            self._apply(toxics)

    def disable(self) -> None:
        """Close all connections, and refuse new ones."""
        self._wait(self._stop())

    def enable(self) -> None:
        """Listen again, on the same port as before.

        Raises:
            ProxyError: The proxy cannot listen on that port.
        """
        self._wait(self._start())

    def reset(self) -> None:
        """Enable the proxy, and remove all toxics.

        Raises:
            ProxyError: Another program listens on its port.
        """
        self.enable()
        self._apply({})

    def differs(self, listen: str, upstream: str) -> bool:
        """Return whether the proxy has other addresses than these; *listen* is resolved first.

        Raises:
            ProxyError: An address is malformed or unknown.
        """
        split_address(upstream, "upstream")
        return join_address(*resolve(listen)) != self.listen or upstream != self.upstream

    def close(self) -> None:
        """Close all connections, and end the thread; may be called again."""
        with self._lock:
            if self._loop.is_closed():
                return
            self.disable()
            self._wait(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _apply(self, toxics: dict[str, Toxic]) -> None:
        async def apply() -> None:
            self.toxics = toxics
            for link in self._links:
                link.apply(toxics.values())

        self._wait(apply())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in the proxy's thread, after the work of earlier callers."""
        with self._lock:
            if self._loop.is_closed():
                work.close()
                msg = "the fault proxy is closed; make a new FaultProxy"
                raise RuntimeError(msg)
            asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _start(self) -> None:
        if self._server is None:
            listening, self.listen = listen_on(self.listen)
            self._server = await asyncio.start_server(
                self._accept, sock=listening, limit=CHUNK_BYTES
            )

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # asyncio leaves a connection open that it accepts for a server which is closed by then.
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            await self._turn()
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._turn()

    async def _turn(self) -> None:
        """Let the event loop finish what it is just accepting or closing."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _accept(self, *client: Any) -> None:  # noqa: ANN401 - a reader and a writer
        transport = client[1].transport
        if self._server is None:  # stopped between the connection's arrival and now
            transport.abort()
            return
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: transport.abort())  # also if the task never began

    async def _serve(self, client: Streams) -> None:
        """Link a client to the upstream until both streams have ended."""
        host, port = split_address(self.upstream, "upstream")
        random = Random(self._random.getrandbits(64))  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                server = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
            links = {
                Link(Direction.UPSTREAM, client, server, random): None,
                Link(Direction.DOWNSTREAM, server, client, random): None,
            }
            self._links |= links
            try:
                for link in links:
                    link.apply(self.toxics.values())
                await asyncio.gather(*(link.run() for link in links))
            finally:
                for link in links:
                    link.stop()
                    del self._links[link]
                server[1].transport.abort()
        except (OSError, UnicodeError) as error:
            logger.warning("proxy %s: %s cannot be reached: %r", self.name, self.upstream, error)
