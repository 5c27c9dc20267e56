"""Lets an app forget its remembered answers for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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

    def move(client: redis.Redis) -> None:
        for key in list(client.scan_iter(f"{begin}*")):
            client.rename(key, instead + key.decode().removeprefix(begin))

    adopted.store.run(move)
