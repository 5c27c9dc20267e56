"""Takes messages from a Redis broker."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from queue import Empty
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from resilience.broker.heartbeat import Heartbeat
from resilience.broker.qos import SafeQoS
from resilience.broker.refusals import as_outage
from resilience.broker.silence import LOOK_SECONDS, OVERDUE_SECONDS, has_spoken
from resilience.broker.tracking import track
from resilience.broker.unacked import CRASHES_HEADER, Held, Unacked, script, sha
from resilience.broker.unreadable import NOWHERE, SafeMessage, Unreadable, tag_of
from resilience.clock import SystemClock
from resilience.text import get_logger

logger = get_logger("resilience")

AT_ONCE = 50
"""Most messages taken in one step."""
REFUSED_AT_ONCE = 10
"""So much may a broker refuse before it is left alone until the next beat."""

KombuChannel: Any = kombu_redis.Channel
_TAKE = script("take")
_BIND = "redis.call('SREM', KEYS[1], ARGV[1]) return redis.call('SADD', KEYS[1], ARGV[1])"
"""Behind a command that may free memory, a server that has none left takes one that needs some."""
_TAKE_SHA = sha(_TAKE)
_as_json = lru_cache(maxsize=1024)(dumps)


class SafeChannel(Unreadable, KombuChannel):  # type: ignore[misc] # kombu has few types
    """Takes and notes a message in one step.

    Attributes:
        unacked: What all workers hold.
        silent_seconds: What a worker holds that was not heard of for so long is given to others.
    """

    QoS, Message = SafeQoS, SafeMessage

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        self._noted: set[str] = set()
        self._owed: dict[str, Callable[[], object]] = {}
        self._known = self._asks = self._waits = False
        self._tracked: Any = None
        self._spare: Any = None
        self._plain: redis.Redis | None = None
        self._heartbeat: Heartbeat | None = None
        self._asked: Sequence[str] = ()
        super().__init__(*args, **kwargs)
        self.channel_errors = self.connection.channel_errors
        with as_outage():  # a server that takes no writes is no broker: whoever connects waits
            self.client.zrem(self.unacked_index_key, "")

    @cached_property
    def unacked(self) -> Unacked:
        """What all workers hold."""
        prefix = self.global_keyprefix
        return Unacked(prefix + self.unacked_key, prefix + self.unacked_index_key)

    @property
    def silent_seconds(self) -> float:
        """How long a worker may be silent, in seconds."""
        return float(self.visibility_timeout)

    @property
    def pool(self) -> Any:  # noqa: ANN401 - redis-py's
        """Connections to the server; also when the channel is closed, as jobs of its may run on."""
        return super().pool if self._spare is None or self.connection else self._spare

    def plain_client(self) -> "redis.Redis":
        """Return a client whose keys are as the server knows them."""
        pool = self._spare or self.pool
        if self._plain is None or self._plain.connection_pool is not pool:
            self._plain = redis.Redis(connection_pool=pool)
        return self._plain

    def held_tags(self) -> list[str]:
        """Return the delivery tags of what is nobody else's: about to be delivered, held, owed."""
        qos, tags = self._qos, self._noted | {*self._owed.copy()}
        return [*tags] if qos is None else [*tags | ({*qos._delivered} - qos._dirty)]  # noqa: SLF001

    def was_noted(self, tag: str) -> bool:
        """Tell once whether a message was noted when it was taken."""
        noted = tag in self._noted
        self._noted.discard(tag)
        return noted

    def tell(self, tag: str, say: Callable[[], object]) -> None:
        """Say what became of a message; if the broker is away or refuses, as soon as it hears us.

        Till then nobody waits for it: each message that ends meanwhile would wait by itself.
        """
        if not self.owes:
            try:
                with as_outage():
                    say()
            except (*self.connection_errors, *self.channel_errors):
                if self._heartbeat is None:
                    raise  # nobody would say it later
            else:
                return
        self._owed[tag] = say
        if self._heartbeat is not None:
            self._heartbeat.keep(self)

    @property
    def owes(self) -> bool:
        """Whether the broker is still to be told what became of messages."""
        return bool(self._owed)

    def settle(self) -> list[Exception]:
        """Tell the broker what it is to be told; return what it refuses, and is told again."""
        refused: list[Exception] = []
        for tag, say in self._owed.copy().items():
            if len(refused) == REFUSED_AT_ONCE:
                break
            try:
                say()
            except ResponseError as error:
                refused.append(error)
                self._owed[tag] = self._owed.pop(tag)  # as the last: the others have their turn
            else:
                del self._owed[tag]
        return refused

    def give_back(self, held: Held) -> None:
        """Put what a dead worker held back, to be taken next, and count that death."""
        headers = held.message.setdefault("headers", {})
        crashes = headers.get(CRASHES_HEADER)
        headers[CRASHES_HEADER] = (crashes if isinstance(crashes, int) else 0) + 1
        self.put_back(held, first=True)

    def put_back(self, held: Held, *, first: bool) -> None:
        """Put a message back into the queue that it was taken from.

        Under another tag: whoever held it, or is to say so once more, has no say in it any more.
        """
        message = held.message
        message["properties"]["delivery_tag"] = uuid()
        with suppress(KeyError, TypeError):
            message["headers"]["redelivered"] = True
            message["properties"]["delivery_info"]["redelivered"] = True
        priority = self._get_message_priority(message, reverse=False)
        for queue in self._lookup(held.exchange, held.routing_key):
            key = self.global_keyprefix + self._q_for_pri(queue, priority)
            self.unacked.restore(self.plain_client(), held, key, first=first)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind *queue*, also where no memory is left: who consumes frees some."""
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            if queue in self._fanout_queues:
                return  # it is subscribed to, and looked up by nobody
            if queue in self._expires:
                raise
            member = self.sep.join([routing_key or "", pattern or "", queue])
            for name in (self.keyprefix_queue, self.keyprefix_binding_permanent):
                key = self.global_keyprefix + name % (exchange,)
                self.plain_client().eval(_BIND, 1, key, member)

    def holds_any(self, queues: Iterable[str]) -> bool:
        """Tell whether any of *queues*, at least one, holds a message; kombu asks for each."""
        return bool(self.plain_client().exists(*(key for _, key in self._lists(queues))))

    def _lists(self, queues: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield queue and key of each list, as they are served."""
        names, prefix = list(queues), self.global_keyprefix
        for priority in self.priority_steps:
            yield from ((name, prefix + self._q_for_pri(name, priority)) for name in names)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, FBT001 - kombu's
        """Consume from *queue*, as one whom the broker hears of."""
        result = super().basic_consume(queue, no_ack, *args, **kwargs)
        if queue not in self._fanout_queues and not no_ack:
            self._spare = self._spare or self._get_pool()
            self._heartbeat = self.connection.heartbeat
            self._heartbeat.watch(self)
        return result

    def close(self) -> None:
        """Close; what is held is given back, but what runs."""
        self._wait_no_more()
        super().close()

    def _wait_no_more(self) -> None:
        if self._waits:
            self._waits, self._in_poll = False, None

    def _update_queue_cycle(self) -> None:
        """Note that queues have changed: what is waited for is to be told again."""
        super()._update_queue_cycle()
        self._wait_no_more()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's
        params: dict[str, Any] = super()._connparams(asynchronous)
        # Else redis-py reads its own version from the package's files, for each connection again.
        params["driver_info"] = redis.DriverInfo(lib_version=redis.__version__)
        if asynchronous:
            params["protocol"] = 3  # in which the server may speak unasked
        return params

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's
        """Ask for messages; a server that has none now tells when there is one."""
        most = self.qos.room(AT_ONCE)
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or not most:
            return
        connection = self.client.connection
        self._track(connection)
        self._asked, lists = zip(*self._lists(queues), strict=True)
        keys = [*self.unacked.keys, *lists]
        how = ("EVALSHA", _TAKE_SHA) if self._known else ("EVAL", _TAKE)
        who = self._heartbeat.worker if self._heartbeat else "0"
        self._in_poll, self._brpop_sent_at = connection, SystemClock.monotonic()
        self._asks, self._waits = True, False
        connection.send_command(*how, len(keys), *keys, most, who, *map(_as_json, self._asked))

    def _track(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's
        """Let the server tell on this *connection* when one of our queues gets a message."""
        if connection._sock is None:  # noqa: SLF001 - as kombu does
            connection.connect()
        if self._tracked is connection._sock:  # noqa: SLF001
            return
        track(connection)
        self._tracked = connection._sock  # noqa: SLF001

    def look_again(self) -> None:
        """Ask again if the last answer is old; give a server up that owes one for too long.

        A worker that waits looks into its queues also if the server tells it nothing.
        """
        connection, sent = self._in_poll, self._brpop_sent_at
        if not connection or sent is None:
            return
        age = SystemClock.monotonic() - sent
        if self._waits:
            if age >= LOOK_SECONDS:
                self._wait_no_more()
        elif age >= OVERDUE_SECONDS and not has_spoken(connection._sock):  # noqa: SLF001 - as kombu does
            logger.warning("the broker has not answered for %.1f s; connecting again", age)
            connection.disconnect()

    def _brpop_read(self, **_: object) -> bool:
        """Deliver what the server sent.

        Raises:
            Empty: It was no message.
        """
        connection, idle = self.client.connection, not self._in_poll
        try:
            with as_outage():
                reply = self._reply(connection)
        except NoScriptError:
            self._known, reply = False, []  # the server has been started again
        except self.connection_errors:
            connection.disconnect()
            if not idle:
                raise
            reply = []  # a server may close what nobody uses
        finally:
            if not self._waits:
                self._in_poll = None
                self._flush_brpop_reauth()
        if not self._deliver_all(reply):
            raise Empty
        return True

    def _reply(self, connection: Any) -> list[tuple[int, bytes]]:  # noqa: ANN401 - redis-py's
        """Return the messages that the server sent, and whether to wait for it to tell of more."""
        asked, self._asks, self._waits = self._asks, False, False
        reply = connection.read_response(push_request=True)
        while asked and not _is_answer(reply):
            reply = connection.read_response(push_request=True)
        answered = _is_answer(reply)
        empty, rest = (reply[0] == 1, reply[1:]) if answered else (False, [])
        self._known = self._known or answered
        while connection.can_read(timeout=0):  # read along: the event loop will not hear of it
            connection.read_response(push_request=True)
            empty = False
        self._waits = empty
        return list(zip(rest[::2], rest[1::2], strict=True))

    def _deliver_all(self, reply: Sequence[tuple[int, bytes]]) -> int:
        """Deliver messages that were taken, and return how many."""
        left = deque(self.messages(reply, self._asked))
        # To deliver one may take as long as its job, in a pool that runs it on the spot, or that
        # has no room: all are held from now on.
        self._noted.update(tag_of(payload) for payload, *_ in left)
        try:
            while left:
                self._deliver_one(*left.popleft())
        finally:
            # A defect: nobody else must wait for those behind it.
            self._put_back_all([(payload, queue) for payload, queue, _ in left])
        return len(reply)

    def _deliver_one(self, payload: dict[str, Any], queue: str, raw: bytes) -> None:
        tag = tag_of(payload)
        if queue not in self.connection._callbacks:  # noqa: SLF001 - cancelled meanwhile
            self._put_back_all([(payload, queue)])
            return
        self.delivering = queue, raw
        self._noted.add(tag)  # another of the same tag may have been delivered just before
        self._queue_cycle.rotate(queue)
        try:
            self.connection._deliver(payload, queue)  # noqa: SLF001 - as kombu does
        except BaseException:
            self._noted.discard(tag)  # nobody will acknowledge it: it is for others
            raise
        finally:
            self.delivering = NOWHERE
        if self.was_noted(tag):  # by a consumer that acknowledges nothing
            self.qos._remove_from_indices(tag).execute()  # noqa: SLF001

    def _put_back_all(self, unread: Sequence[tuple[dict[str, Any], str]]) -> None:
        """Put back what was taken in this order, so that it is taken in the same order again."""
        for payload, queue in reversed(unread):
            tag = tag_of(payload)
            self._noted.discard(tag)
            self.put_back(Held(tag, payload, "", queue), first=True)

    def _on_connection_disconnect(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's
        if self._in_poll is connection:
            self._asks = self._waits = False
        super()._on_connection_disconnect(connection)


def _is_answer(reply: Any) -> bool:  # noqa: ANN401 - redis-py's
    """Tell what the script returned from what the server says unasked."""
    return isinstance(reply, list) and bool(reply) and isinstance(reply[0], int)
