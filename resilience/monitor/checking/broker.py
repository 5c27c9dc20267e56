"""Rules about the broker and its queues: as the app sets them, and as the broker says."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import redis
from amqp.exceptions import NotFound, PreconditionFailed
from celery import Celery
from kombu.transport import pyamqp, virtual
from kombu.transport import redis as kombu_redis

from resilience.broker.eviction import DROPS_QUEUES
from resilience.broker.heartbeat import GRACE_SECONDS
from resilience.broker.redis import SafeTransport
from resilience.broker.transports import transport_of
from resilience.dependency import Dependency
from resilience.monitor.checking.answers import Answer
from resilience.monitor.checking.rules import Finding, found
from resilience.tasks.publishing import PUBLISH_ERRORS, publish_within

PROBE_SECONDS: Final = 5.0
"""Longest wait for the broker, and for workers, to say how they are set."""
TRANSIENT: Final = frozenset({1, "transient"})


def check_settings(app: Celery[Any], answers: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong with what *app* says to its broker; connects to nothing."""
    transport = transport_of(app)
    default = getattr(getattr(transport, "Channel", None), "visibility_timeout", None)
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout", default)
    if issubclass(transport, SafeTransport):
        if not isinstance(given, int | float) or given < GRACE_SECONDS:
            place = "setting broker_transport_options"
            yield found("visibility-below-heartbeat", place, given=given, least=GRACE_SECONDS)
    elif issubclass(transport, virtual.Transport) and given:
        for one in answers:
            wait = one.retries.waits / max(1.0, one.retries.attempts - 1)
            held, place = max(wait, one.task.time_limit or 0.0), f"task {one.task.name}"
            if one.task.acks_late and held > float(given):
                yield found("time-limit-over-visibility", place, held=held, visibility=float(given))
    elif issubclass(transport, pyamqp.Transport):
        yield from _not_durable(app)


def _not_durable(app: Celery[Any]) -> Iterator[Finding]:
    """Yield queues, and messages, of RabbitMQ that do not outlive it."""
    mode = app.conf.task_default_delivery_mode
    if mode in TRANSIENT:
        yield found("message-not-durable", "setting task_default_delivery_mode", why=mode)
    for queue in app.amqp.queues.values():
        mode = getattr(queue.exchange, "delivery_mode", None)
        if not queue.durable or mode in TRANSIENT:
            why = f"durable={queue.durable}, delivery_mode={mode}"
            yield found("message-not-durable", f"queue {queue.name}", why=why)


def probe(app: Celery[Any]) -> tuple[list[Finding], set[str]]:
    """Ask the broker of *app* whether it keeps jobs, and workers which queues they consume."""
    said: list[Finding] = []
    consumed: set[str] = set()

    def ask(_: threading.Event) -> None:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            said.extend(_ask(app, connection.default_channel))
        for queues in (app.control.inspect(timeout=1.0).active_queues() or {}).values():
            consumed.update(str(one["name"]) for one in queues)

    why = f"no answer within {PROBE_SECONDS:g} s"
    try:
        if publish_within(PROBE_SECONDS, ask):
            return said, consumed
    except (redis.RedisError, LookupError, TypeError, *PUBLISH_ERRORS) as error:
        why = str(error) or repr(error)
    return [*said, found("cannot-tell", "broker", what="what it does", why=why)], consumed


def _ask(app: Celery[Any], channel: Any) -> Iterator[Finding]:  # noqa: ANN401 - kombu's
    transport = transport_of(app)
    if issubclass(transport, kombu_redis.Transport):
        yield from ask_redis(channel.client)
    elif transport.driver_type == "memory":
        yield found("broker-not-persistent", "broker", setting="memory:// ends with the process")
    for queue in app.amqp.queues.values() if issubclass(transport, pyamqp.Transport) else ():
        bound = queue(channel.connection.channel())
        with suppress(NotFound):
            bound.queue_declare(passive=True)
            try:
                bound.queue_declare()  # it is there: the broker only compares
            except PreconditionFailed as error:
                yield found("message-not-durable", f"queue {queue.name}", why=error.reply_text)


def ask_redis(client: Any) -> Iterator[Finding]:  # noqa: ANN401 - redis-py's, or kombu's of it
    """Yield what is wrong with the server of *client*, as far as it tells."""
    memory, kept = _told(client.info, "memory"), _told(client.info, "persistence")
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory")
    if policy is None:
        yield found("cannot-tell", "broker", what="its maxmemory-policy", why="it refuses INFO")
    elif policy.startswith(DROPS_QUEUES):
        severity = "warning" if limit == 0 else None  # never full, so far
        yield found("broker-evicts", "broker", severity, policy=policy, limit=limit)
    saves = "" if kept.get("aof_enabled") else _told(client.config_get, "save").get("save")
    if saves is None or not kept:
        why = "it refuses INFO or CONFIG GET"
        yield found("cannot-tell", "broker", what="whether it keeps jobs on disk", why=why)
    elif not saves and not kept.get("aof_enabled"):
        yield found("broker-not-persistent", "broker", setting='appendonly no, save ""')


def _told(ask: Callable[[str], Any], what: str) -> dict[str, Any]:
    with suppress(redis.ResponseError):  # its user may not ask
        return dict(ask(what))
    return {}


def check_queues(
    app: Celery[Any], known: Mapping[str, Dependency], answers: Iterable[Answer], running: set[str]
) -> Iterator[Finding]:
    """Yield queues that jobs go to and that nobody consumes: no worker of `up`, none that runs."""
    own = [queue for one in known.values() for queue in one.queues]
    for one in answers:
        for queue in _queues_of(app, one) - running.union(own, [app.conf.task_default_queue]):
            yield found("queue-without-worker", f"queue {queue}", of=one.task.name, queue=queue)


def _queues_of(app: Celery[Any], one: Answer) -> set[str]:
    """Return the queues that jobs of a task go to, by its routes and by the schedule."""
    own = {key: value for key, value in one.task._get_exec_options().items() if value is not None}  # noqa: SLF001
    queues = set()
    for options in one.options or [{}]:
        with suppress(Exception):  # by a route of the app's own, which needs arguments
            route = app.amqp.router.route({**own, **options}, one.task.name, (), {}, one.task)
            queues.add(route["queue"].name)
    return queues
