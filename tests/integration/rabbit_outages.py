"""Outages of a RabbitMQ for the length of a `with` block."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from resilience.testing.rabbitmq import RabbitProcess


@contextmanager
def out_of_memory(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Let the broker block publishers, as when its memory is full."""
    rabbitmq.block()
    try:
        yield
    finally:
        rabbitmq.unblock()


@contextmanager
def black_hole(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Stop the broker's process: connections stay open, and nothing answers."""
    rabbitmq.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        rabbitmq.send_signal(signal.SIGCONT)


@contextmanager
def away(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Kill the broker, after it has noted its queues, and start it again afterwards."""
    rabbitmq.note_queues()
    rabbitmq.kill()
    try:
        yield
    finally:
        rabbitmq.start()


@contextmanager
def restarting(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Let the broker close all connections and refuse new ones, as in a restart."""
    rabbitmq.evaluate("rabbit:stop()")
    try:
        yield
    finally:
        rabbitmq.evaluate("rabbit:start()")
