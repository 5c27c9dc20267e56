"""A proxy with faults inside a Python program, such as a test."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from random import Random
from typing import Any, Self

from resilience.chaos.proxy.listener import split_address
from resilience.chaos.proxy.proxies import LISTEN
from resilience.chaos.proxy.proxy import Proxy
from resilience.chaos.proxy.toxic import Toxic

CALL_SECONDS = 30.0
"""Longest wait for the proxy's thread."""


class FaultProxy:
    """Forwards between clients and a server, and harms the streams as its toxics say.

    It runs in a thread of its own from its construction until `close`, or the end of a `with`
    block. All methods may be called from any thread.

        with FaultProxy("127.0.0.1:6379") as proxy:
            client = redis.Redis(port=proxy.port)
            proxy.add("latency", latency=500)
            ...
            proxy.remove("latency_downstream")

    Attributes:
        host: Where it listens.
        port: Where it listens, also while it is disabled.
    """

    def __init__(
        self,
        upstream: str,
        *,
        listen: str = LISTEN,
        toxics: Iterable[Mapping[str, Any]] = (),
        seed: int | None = None,
    ) -> None:
        """Listen.

        Args:
            upstream: `host:port` of the server.
            listen: `host:port`; a port of 0 picks a free one.
            toxics: Affect the proxy from its first connection on, in the form of Toxiproxy's API:
                `{"type": "latency", "attributes": {"latency": 500}}`.
            seed: For toxicity, jitter and sizes; None: different each time.

        Raises:
            ProxyError: An address or a toxic is wrong, or it cannot listen there.
        """
        random = Random(seed)  # noqa: S311 - no secret
        self._proxy = Proxy("proxy", listen, upstream, random)
        for toxic in toxics:
            self._proxy.add(Toxic.parse(toxic))
        self._lock = threading.Lock()
        self._closed = False
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._loop = self._started.result()
        self.host, self.port = split_address(self._proxy.listen, "listen")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

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
        """Let a toxic affect existing and new connections, and return its name.

        Args:
            kind: Type of the toxic, such as `latency`.
            stream: `downstream`, from the server to the client, or `upstream`.
            name: By default the type and the stream, such as `latency_downstream`.
            toxicity: Share of the connections that it affects, in [0, 1].
            **attributes: As the type has them; docs/proxy.md has a table.

        Raises:
            ProxyError: The type, the stream or an attribute is wrong, or the name exists.
            RuntimeError: The proxy is closed.
        """
        body = {"type": kind, "stream": stream, "name": name, "toxicity": toxicity}
        toxic = Toxic.parse({**body, "attributes": attributes})
        self._call(lambda: self._proxy.add(toxic))
        return toxic.name

    def update(self, name: str, *, toxicity: float | None = None, **attributes: int) -> None:
        """Change a toxic, also for existing connections; what is not given stays as it is.

        Raises:
            ProxyError: There is no toxic of that name, or a value is wrong.
            RuntimeError: The proxy is closed.
        """
        body = {"toxicity": toxicity, "attributes": attributes}
        self._call(lambda: self._proxy.change(name, body))

    def remove(self, name: str) -> None:
        """Remove a toxic; what it held is delivered, in order.

        Raises:
            ProxyError: There is no toxic of that name.
            RuntimeError: The proxy is closed.
        """
        self._call(lambda: self._proxy.remove(name))

    def disable(self) -> None:
        """Close all connections, and refuse new ones.

        Raises:
            RuntimeError: The proxy is closed.
        """
        self._wait(self._proxy.stop())

    def enable(self) -> None:
        """Listen on the same port again.

        Raises:
            ProxyError: Another program listens there.
            RuntimeError: The proxy is closed.
        """
        self._wait(self._proxy.start())

    def reset(self) -> None:
        """Enable the proxy, and remove all toxics.

        Raises:
            ProxyError: Another program listens on its port.
            RuntimeError: The proxy is closed.
        """
        self.enable()
        self._call(self._proxy.clear)

    def close(self) -> None:
        """Close all connections, and end the thread; may be called again."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _call(self, change: Callable[[], object]) -> None:
        async def call() -> None:
            change()

        self._wait(call())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in the proxy's thread, after what others asked for."""
        with self._lock:
            if self._closed:
                work.close()
                msg = "the fault proxy is closed; make another one"
                raise RuntimeError(msg)
            asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        await self._proxy.start()
        self._started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await self._proxy.stop()
