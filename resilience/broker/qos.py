"""What a channel of a Redis broker holds."""

import functools
from contextlib import suppress
from typing import Any

from celery.worker import state as worker_state
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import QoS as VirtualQoS

KombuQoS: Any = kombu_redis.QoS


class SafeQoS(KombuQoS):  # type: ignore[misc] # kombu has few types
    """What a channel holds."""

    def room(self, most: int) -> int:
        """Return how many messages may be taken in one step, *most* or fewer."""
        if "can_consume" in vars(self):
            # Celery's `worker_disable_prefetch` answers here in place of the class. It counts jobs
            # that run, and must be asked again after each message.
            return int(self.can_consume())
        estimate = self.can_consume_max_estimate()
        return most if estimate is None else min(estimate, most)

    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's
        """Hold *message*; the script that took it has noted that."""
        if self.channel.was_noted(delivery_tag):
            VirtualQoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; whoever waits for room to take more hears of it."""
        self._end(delivery_tag, self._remove, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's
        """Reject; whoever waits for room to take more hears of it."""
        if requeue:
            self._end(delivery_tag, self.restore_by_tag, delivery_tag, None, True)  # noqa: FBT003
        else:
            self._end(delivery_tag, self._remove, delivery_tag)

    def _end(self, tag: str, say: Any, *args: Any) -> None:  # noqa: ANN401 - any function
        """Hold a message no longer, also if the broker is told of that later.

        One that ended and was held on would be renewed for ever, and its place be nobody's.
        """
        self.channel.tell(tag, functools.partial(say, *args))
        VirtualQoS.ack(self, tag)
        self._make_room()

    def _remove(self, tag: str) -> None:
        self._remove_from_indices(tag).execute()

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:  # noqa: ANN401 - kombu's
        """Forget a message; no transaction: a server that is out of memory refuses every one."""
        with self.channel.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False) if pipe is None else pipe
            # If only the first is done, whoever looks for the dead does the second.
            return pipe.hdel(self.unacked_key, delivery_tag).zrem(
                self.unacked_index_key, delivery_tag
            )

    def _make_room(self) -> None:
        connection = self.channel.connection
        if connection is not None:  # else it is closed, and a job of its has ended
            connection.cycle.wake()

    def restore_visible(self, *_: object, **__: object) -> None:
        """Do nothing: the heartbeat does."""

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: ANN401, ARG002, FBT001, FBT002 - kombu's
        """Put a message back: *leftmost* as the last of its queue, else as the next."""
        held = self.channel.unacked.find(self.channel.plain_client(), tag)
        if held is not None:
            self.channel.put_back(held, first=not leftmost)

    def restore_unacked(self, client: Any = None) -> None:  # noqa: ANN401, ARG002 - kombu's
        """Put back what is held when the channel closes, but what runs.

        Those jobs are acknowledged when they end, through this very channel. If the broker is away
        it gives the others to somebody itself, as nobody renews them any more.
        """
        running = _running()
        tags = [tag for tag in self._delivered if tag not in running]
        with suppress(*self.channel.connection_errors):  # one that is away is not asked for each
            for tag in tags:
                with suppress(*self.channel.channel_errors, RecursionError):
                    self.restore_by_tag(tag)
        for tag in tags:
            self._delivered.pop(tag, None)


def _running() -> set[str]:
    """Return the delivery tags of the jobs that this worker runs, and will acknowledge."""
    worker: Any = worker_state
    if worker.should_stop is not None or worker.should_terminate is not None:
        return set()  # it ends, and they with it
    return {str(request.message.delivery_tag) for request in list(worker.active_requests)}
