"""Lets an app forget its remembered answers for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import redis

from resilience.tasks.resilience import Resilience

ASIDE: Final = "aside"


@contextmanager
def forgotten(adopted: Resilience) -> Iterator[None]:
    """Set all remembered answers aside for the block, and bring them back afterwards.

    They are not deleted: a process that wrote one lately would not soon write it again.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    _move(adopted, "answer", ASIDE)
    try:
        yield
    finally:
        _move(adopted, ASIDE, "answer")


def _move(adopted: Resilience, old: str, new: str) -> None:
    begin, instead = (adopted.store.key(kind, "") for kind in (old, new))
    for key in _keys(adopted, old):
        moved = partial(_rename, key, instead + key.removeprefix(begin))
        adopted.store.run(moved)


def _rename(old: str, new: str, client: redis.Redis) -> None:
    client.rename(old, new)


def _keys(adopted: Resilience, kind: str) -> list[str]:
    pattern = adopted.store.key(kind, "*")
    found: Any = adopted.store.run(lambda client: list(client.scan_iter(pattern)))
    return [one.decode() for one in found]
