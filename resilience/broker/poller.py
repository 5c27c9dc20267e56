"""Waits for a Redis broker to say something."""

from contextlib import suppress
from socket import socket, socketpair
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.eventio import READ

KombuPoller: Any = kombu_redis.MultiChannelPoller


class SafePoller(KombuPoller):  # type: ignore[misc] # kombu has few types
    """Waits for the server to say something on any channel.

    Where no event loop waits for it (gevent, and whoever drains events), the end of a job that some
    other greenlet ran makes room for more: kombu notices that only when its wait is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends: tuple[socket, socket] | None = None
        self._full = False

    def get(self, callback: Any, timeout: float | None = None) -> Any:  # noqa: ANN401 - kombu's
        """Wait for a message, or for room for one, and deliver it."""
        if self._ends is None:
            self._ends = socketpair()
            for end in self._ends:
                end.setblocking(False)  # noqa: FBT003 - as it is called
            self.poller.register(self._ends[0], READ)
        self._full = True
        # Here, too: where others have much to say, such as the workers' events, no wait ends idle.
        self.maybe_restore_messages()
        try:
            return super().get(callback, timeout)
        finally:
            self._full = False

    def wake(self) -> None:
        """Let a wait end: there is room."""
        if self._full and self._ends is not None:
            self._full = False
            with suppress(BlockingIOError):
                self._ends[1].send(b".")

    def handle_event(self, fileno: int, event: int) -> Any:  # noqa: ANN401 - kombu's
        """Handle what a wait ended with."""
        if self._ends is not None and fileno == self._ends[0].fileno():
            with suppress(BlockingIOError):
                self._ends[0].recv(64)
            return None
        return super().handle_event(fileno, event)

    def on_readable(self, fileno: int) -> Any:  # noqa: ANN401 - kombu's
        """Read at once: kombu waits until there is room, or takes a word unasked for the end."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        return channel.handlers[kind]() if kind == "BRPOP" else super().on_readable(fileno)

    def _pause_brpop(self, channel: Any, fileno: int) -> None:  # noqa: ANN401 - kombu's
        """Never: what an answer brings along is held already, and must be read to be renewed."""

    def close(self) -> None:
        """Close."""
        super().close()
        for end in self._ends or ():
            end.close()
        self._ends = None

    def maybe_restore_messages(self) -> None:
        """Called every second, and when nothing happens: look after the connections."""
        for channel in list(self._channels):
            channel.look_again()
