"""What may befall a RabbitMQ for the length of a `with` block."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from resilience.testing.rabbitmq import RabbitProcess


@contextmanager
def out_of_memory(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Let the broker block all who publish."""
    rabbitmq.block()
    try:
        yield
    finally:
        rabbitmq.unblock()


@contextmanager
def black_hole(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Let the broker answer nobody."""
    rabbitmq.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        rabbitmq.send_signal(signal.SIGCONT)


@contextmanager
def away(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Kill the broker, whose queues are not those of the last seconds."""
    rabbitmq.note_queues()
    rabbitmq.kill()
    try:
        yield
    finally:
        rabbitmq.start()


@contextmanager
def restarting(rabbitmq: RabbitProcess) -> Iterator[None]:
    """Let the broker close all connections and refuse new ones, as one does that restarts."""
    rabbitmq.evaluate("rabbit:stop()")
    try:
        yield
    finally:
        rabbitmq.evaluate("rabbit:start()")
