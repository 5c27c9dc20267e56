"""Children that are forked while another thread of their parent is anywhere in the store's code."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from uuid import uuid4

import pytest

from resilience import StoreUnavailableError
from resilience.store import Store
from resilience.testing.valkey import ValkeyProcess

SECONDS = 20.0
NOBODY = "redis://127.0.0.1:1"

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@contextmanager
def held_by_a_thread(lock: Any) -> Iterator[None]:  # noqa: ANN401 - of any kind
    """Let another thread hold *lock*."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            let_go.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(SECONDS)
    try:
        yield
    finally:
        let_go.set()
        thread.join(SECONDS)


def said_by_child(store: Store) -> object:
    """Return what a child that is forked now hears from the store."""

    def child(pipe: Connection) -> None:
        try:
            pipe.send(store.run(lambda client: client.ping()))
        except StoreUnavailableError:
            pipe.send("unavailable")

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    try:
        assert ours.poll(SECONDS), "the child hangs"
        return ours.recv()
    finally:
        process.kill()
        process.join(SECONDS)


def test_child_works_whose_parent_was_taking_a_connection(valkey: ValkeyProcess) -> None:
    """It has a copy of the pool's lock, and nobody to release it."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    assert store.run(lambda client: client.ping())

    with held_by_a_thread(store.client.connection_pool._lock):  # noqa: SLF001 - that moment
        assert said_by_child(store) is True

    assert store.run(lambda client: client.ping())
    store.client.close()


def test_child_goes_on_whose_parent_was_losing_the_store() -> None:
    """It is told that the store is away, as at any other moment."""
    store = Store(NOBODY, namespace=uuid4().hex)
    with pytest.raises(StoreUnavailableError):
        store.run(lambda client: client.ping())

    with held_by_a_thread(store._turn):  # noqa: SLF001 - that moment
        assert said_by_child(store) == "unavailable"
