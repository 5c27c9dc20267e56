"""Notices that an AMQP broker says nothing more."""

from typing import Any

import amqp
from amqp import spec
from amqp.exceptions import RecoverableConnectionError

from resilience.broker.silence import LOOK_SECONDS, OVERDUE_SECONDS, has_spoken
from resilience.clock import SystemClock

ANSWER_SECONDS = 10.0
"""A broker that has not answered for so long is gone. To declare a queue may take it seconds."""
CLOSE_SECONDS = 1.0
"""Who closes a connection, or a channel, needs no answer."""


class Bounded:
    """Waits for an answer of the broker, but not for ever."""

    connection: Any
    is_closing: bool

    def wait(self, method: Any, *args: Any, timeout: float | None = None, **how: Any) -> Any:  # noqa: ANN401 - py-amqp's
        """Wait for *method*, or one of them.

        Raises:
            RecoverableConnectionError: It did not come; the connection is closed.
        """
        connection = self.connection
        seconds = CLOSE_SECONDS if self.is_closing else timeout or ANSWER_SECONDS
        try:
            return super().wait(method, *args, timeout=seconds, **how)  # type: ignore[misc]
        except TimeoutError as error:
            raise given_up(connection, "the broker did not answer in time") from error


class Asking:
    """A connection that asks a silent broker whether it is there.

    The heartbeats of AMQP are asked of both sides: made quick enough, a broker would cut off a
    worker whose loop is blocked by a job, and give its jobs to others.

    Attributes:
        blocked: The broker reads nothing for now, and has said so.
    """

    blocked = False
    bytes_recv: int
    channels: dict[int, Any] | None
    sock: Any

    _heard = -1
    _asked_at: float | None = None

    def look_again(self) -> None:
        """Ask the broker, if it has said nothing since the last look.

        Raises:
            RecoverableConnectionError: It has not answered; the connection is closed.
        """
        now = SystemClock.monotonic()
        if self._heard != self.bytes_recv or self.blocked:
            self._heard, self._asked_at = self.bytes_recv, None
        elif self._asked_at is None:
            self._asked_at = now if self._ask() else None
        elif now - self._asked_at >= OVERDUE_SECONDS and not has_spoken(self.sock):
            raise given_up(self, f"the broker has not answered for {now - self._asked_at:.1f} s")

    def _ask(self) -> bool:
        """Ask something that changes nothing; return whether there is a channel to ask on."""
        for channel in (self.channels or {}).values():
            if isinstance(channel, amqp.Channel) and channel.is_open:
                channel.send_method(spec.Channel.Flow, "b", (True,))
                return True
        return False


class Watching:
    """A transport that looks after its connection while it waits for messages."""

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ANN401 - kombu's
        """Look while the event loop runs."""
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        loop.call_repeatedly(LOOK_SECONDS, connection.look_again)

    def drain_events(self, connection: Any, **how: Any) -> Any:  # noqa: ANN401 - kombu's
        """Look, and wait for an event."""
        connection.look_again()
        return super().drain_events(connection, **how)  # type: ignore[misc]


def given_up(connection: Any, why: str) -> RecoverableConnectionError:  # noqa: ANN401 - py-amqp's
    """Close *connection* without asking, and return the error that says *why*."""
    client = getattr(connection, "client", None)
    if client is not None:
        client.declared_entities.clear()
    if connection is not None:
        connection.collect()
    return RecoverableConnectionError(why)
