"""Kombu's AMQP transport, but for the ways in which it loses a message or waits for ever."""

from typing import Any

from amqp.exceptions import RecoverableConnectionError
from celery import Celery
from kombu.connection import ConnectionPool, PooledConnection
from kombu.transport import pyamqp

from resilience.broker.asking import ANSWER_SECONDS, Asking, Bounded, Watching
from resilience.broker.confirming import ConfirmingChannel


class BoundedConnection(Asking, Bounded, pyamqp.Connection):
    """A connection that gives up a broker which does not answer."""

    Channel = ConfirmingChannel

    @property
    def answer_seconds(self) -> float:
        """How long to wait for a confirmation."""
        return float(self.read_timeout or ANSWER_SECONDS)

    def _on_blocked(self) -> None:
        self.blocked = True
        super()._on_blocked()  # type: ignore[misc] # missing in the stubs

    def _on_unblocked(self) -> None:
        self.blocked = False
        super()._on_unblocked()  # type: ignore[misc] # as above


class ConfirmingTransport(Watching, pyamqp.Transport):
    """Kombu's, with such connections."""

    Connection = BoundedConnection


class ConfirmingSSLTransport(Watching, pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = BoundedConnection


CONFIRMING = {
    pyamqp.Transport: ConfirmingTransport,
    pyamqp.SSLTransport: ConfirmingSSLTransport,
}


class Confirming:
    """A connection of kombu's whose transport is one of these.

    Kombu connects again without a word when it finds the connection lost, as a greenlet does whose
    acknowledgement was the first to notice. Nobody consumes over the new one, and the channels of
    the old one go on failing. So who waits on a lost one is told, and whoever still has a channel
    of one that is replaced.
    """

    connected: bool
    transport: Any
    _connection: Any

    def get_transport_cls(self) -> Any:  # noqa: ANN401 - a class
        """Return the transport; one that is nobody else's is replaced."""
        found: Any = super().get_transport_cls()  # type: ignore[misc]
        return CONFIRMING.get(found, found)

    def drain_events(self, **how: Any) -> Any:  # noqa: ANN401 - kombu's
        """Wait for an event.

        Raises:
            RecoverableConnectionError: The connection is lost.
        """
        self._must_be_connected()
        return super().drain_events(**how)  # type: ignore[misc]

    def heartbeat_check(self, *args: Any, **how: Any) -> Any:  # noqa: ANN401 - kombu's
        """Beat.

        Raises:
            RecoverableConnectionError: The connection is lost.
        """
        self._must_be_connected()
        return super().heartbeat_check(*args, **how)  # type: ignore[misc]

    def _must_be_connected(self) -> None:
        if isinstance(self.transport, Watching) and not self.connected:
            msg = "the connection to the broker was lost"
            raise RecoverableConnectionError(msg)

    def _establish_connection(self) -> Any:  # noqa: ANN401 - kombu's
        if isinstance(self._connection, BoundedConnection):
            self._connection.collect()
        return super()._establish_connection()  # type: ignore[misc]


class ConfirmingPooled(Confirming, PooledConnection):
    """One of a pool."""


class ConfirmingPool(ConnectionPool):
    """A pool of those."""

    def new(self) -> Any:  # noqa: ANN401 - kombu's
        """Return one more."""
        return ConfirmingPooled(self, **dict(self.connection._info(resolve=False)))  # noqa: SLF001


def confirm_publishes(app: Celery[Any]) -> None:
    """Let *app* publish to an AMQP broker as this module says; other brokers are as they were."""
    own: Any = app.amqp
    base: Any = type(own)

    class Connection(Confirming, base.Connection):  # type: ignore[misc] # any class of connections
        def Pool(self, limit: int | None = None, **options: Any) -> Any:  # noqa: ANN401, N802 - kombu's
            if self.get_transport_cls() in CONFIRMING.values():
                return ConfirmingPool(self, limit, **options)
            return super().Pool(limit, **options)

    own.__class__ = type(base.__name__, (base,), {"Connection": Connection})
