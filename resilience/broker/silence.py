"""How a broker is told that answers late from one that is gone."""

from typing import Any, Final

from kombu.utils.eventio import READ, poll

LOOK_SECONDS: Final = 1.0
"""How often a worker looks after its connection."""
OVERDUE_SECONDS: Final = 3.0
"""A server that has not answered for so long is one that is gone; the worker connects again."""


def has_spoken(sock: Any) -> bool:  # noqa: ANN401 - a socket of any kind
    """Tell whether there is something to read, and leave it where the event loop sees it."""
    poller = poll()
    try:
        poller.register(sock, READ)
        return bool(poller.poll(0))
    finally:
        poller.close()
