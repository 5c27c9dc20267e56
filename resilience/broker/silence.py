"""Tells a broker that answers late from one that is gone."""

from typing import Any, Final

from kombu.utils.eventio import READ, poll

LOOK_SECONDS: Final = 1.0
"""How often a worker checks its connection."""
OVERDUE_SECONDS: Final = 3.0
"""A server that has not answered for this long counts as gone; the worker connects again."""


def has_spoken(sock: Any, wait_seconds: float = 0.0) -> bool:  # noqa: ANN401 - a socket of any kind
    """Tell whether *sock* has something to read or was closed by its peer; read nothing.

    *wait_seconds* is how long to wait for either.
    """
    poller = poll()
    try:
        poller.register(sock, READ)
        return bool(poller.poll(wait_seconds))
    finally:
        poller.close()
