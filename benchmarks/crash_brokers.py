"""The brokers that the benchmark of killed workers runs on."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.crash_app import PLAIN, VISIBILITY
from resilience.testing.process import ServerProcess
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.valkey import ValkeyProcess

Server = TypeVar("Server", bound=ServerProcess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A server for all sides, one after the other, and the plain sides to put beside ours.

    Attributes:
        name: Of the broker.
        url: Its address.
        store_url: Of the store; the broker itself if it can be that.
        flush: Lets it forget everything.
        plain: Names of plain sides, the one that comes as it is first.
    """

    name: str
    url: str
    store_url: str
    flush: Callable[[], None]
    plain: Sequence[str]


@contextmanager
def redis_broker() -> Iterator[Broker]:
    """Run a Redis server for as long as the block lasts."""
    with ExitStack() as stack:
        server = _running(stack, ValkeyProcess(_home(stack)))
        yield Broker(
            name="redis",
            url=server.url,
            store_url=server.url,
            flush=server.flush,
            plain=list(PLAIN),
        )


@contextmanager
def rabbitmq_broker() -> Iterator[Broker]:
    """Run a RabbitMQ server, and a store beside it, for as long as the block lasts.

    It knows no visibility timeout, so there is no plain side with a short one.
    """
    with ExitStack() as stack:
        server = _running(stack, RabbitProcess(_home(stack)))
        store = _running(stack, ValkeyProcess(_home(stack)))
        yield Broker(
            name="rabbitmq",
            url=server.url,
            store_url=store.url,
            flush=server.flush,
            plain=[style for style in PLAIN if style != VISIBILITY],
        )


def _home(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))


def _running(stack: ExitStack, server: Server) -> Server:
    server.start()
    stack.callback(server.kill)
    return server
