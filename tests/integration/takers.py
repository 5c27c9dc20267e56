"""Consumers of a Redis broker, in this process and in others."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from resilience.broker import SafeConnection
from resilience.clock import SystemClock
from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

SILENT_SECONDS = 2.0
SECONDS = 120.0
OPTIONS = {"visibility_timeout": SILENT_SECONDS, "unacked_restore_interval": 1}
HOLDER = """
import os, sys, time
from kombu import Consumer, Queue
from resilience.broker import SafeConnection
url, queue, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
connection = SafeConnection(url, transport_options=options)
def hold(message):
    print(message.headers["id"], flush=True)
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
with Consumer(connection, [Queue(queue)], on_message=hold, prefetch_count=1):
    print("ready", flush=True)
    while True:
        try:
            connection.drain_events(timeout=1)
        except TimeoutError:
            pass
"""


@pytest.fixture
def broker(valkey: ValkeyProcess) -> ValkeyProcess:
    """An empty broker."""
    valkey.flush()
    return valkey


@pytest.fixture
def queue() -> str:
    """A queue of its own."""
    return uuid4().hex


class Taker:
    """A consumer in this process, which acknowledges nothing by itself."""

    def __init__(self, url: str, queues: list[str], prefetch: int = 0, **options: Any) -> None:  # noqa: ANN401 - kombu's
        self.connection = SafeConnection(url, transport_options={**OPTIONS, **options})
        self.messages: list[Message] = []
        how = {} if not prefetch else {"prefetch_count": prefetch}
        self.consumer = Consumer(
            self.connection.channel(),
            [Queue(name) for name in queues],
            on_message=self.messages.append,
            **how,
        )
        self.consumer.consume()

    def drain(self, seconds: float = 0.2) -> None:
        """Handle what comes within *seconds*."""
        until = SystemClock.monotonic() + seconds
        while (left := until - SystemClock.monotonic()) > 0:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=left)

    def await_number(self, number: int) -> list[Message]:
        """Wait for so many messages, and return them."""

        def come() -> bool:
            self.drain(0.05)
            return len(self.messages) >= number

        wait_until(come, SECONDS, f"{number} messages come")
        return self.messages


@pytest.fixture
def taker(broker: ValkeyProcess) -> Iterator[Callable[..., Taker]]:
    """Makes consumers, and closes them."""
    made: list[Taker] = []

    def make(*queues: str, **options: Any) -> Taker:  # noqa: ANN401 - kombu's
        made.append(Taker(broker.url, list(queues), **options))
        return made[-1]

    yield make
    for one in made:
        one.connection.close()


def publish(
    broker: ValkeyProcess,
    queue: str,
    number: int = 1,
    odd: Any = None,  # noqa: ANN401 - anything JSON has
    **options: Any,  # noqa: ANN401 - kombu's
) -> list[str]:
    """Publish so many messages, as any client does, and return their ids."""
    ids = [uuid4().hex for _ in range(number)]
    with Connection(broker.url) as connection, connection.Producer() as producer:
        for one in ids:
            producer.publish({}, routing_key=queue, headers={"id": one, "odd": odd}, **options)
    return ids


def ids_of(messages: list[Message]) -> list[str]:
    """Return their ids."""
    return [message.headers["id"] for message in messages]


@contextmanager
def holder(url: str, queue: str, *how: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that consumes, holds one message and says its id.

    Args:
        url: Of the broker.
        queue: Its name.
        *how: "fork": it then forks a process that lives as long as the test.
    """
    process = subprocess.Popen(  # noqa: S603 - of this module
        [sys.executable, "-c", HOLDER, url, queue, repr(OPTIONS), *how],
        stdout=subprocess.PIPE,
        text=True,
        env=inherited_env({"PYTHONPATH": import_path()}),
        start_new_session=True,
    )
    try:
        assert said_by(process) == "ready"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said_by(process: "subprocess.Popen[str]") -> str:
    """Return the next line that *process* prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
