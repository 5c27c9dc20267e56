"""Rules about the broker and its queues: as the app sets them, and as the broker says."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import redis
from celery import Celery
from kombu.transport import pyamqp, virtual
from kombu.transport import redis as kombu_redis

from resilience.broker.eviction import DROPS_QUEUES
from resilience.broker.heartbeat import GRACE_SECONDS
from resilience.broker.redis import SafeTransport
from resilience.broker.transports import transport_of
from resilience.dependency import Dependency
from resilience.monitor.checking.answers import Answer
from resilience.monitor.checking.rules import Finding, finding_of
from resilience.tasks.publishing import PUBLISH_ERRORS, publish_within

PROBE_SECONDS: Final = 5.0
"""Longest wait for the broker, and for workers, to say how they are set."""
TRANSIENT: Final = frozenset({1, "transient"})


def check_settings(app: Celery[Any], answers: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong in the settings of *app* about its broker, without connecting."""
    transport = transport_of(app)
    default = getattr(getattr(transport, "Channel", None), "visibility_timeout", None)
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout", default)
    if issubclass(transport, SafeTransport):
        if not isinstance(given, int | float) or given < GRACE_SECONDS:
            place = "setting broker_transport_options"
            yield finding_of("visibility-below-heartbeat", place, given=given, least=GRACE_SECONDS)
    elif issubclass(transport, virtual.Transport) and given:
        limit = float(given)
        for answer in answers:
            wait = answer.waits / max(1.0, answer.attempts - 1)
            held, place = max(wait, answer.task.time_limit or 0.0), f"task {answer.task.name}"
            if answer.task.acks_late and held > limit:
                yield finding_of("time-limit-over-visibility", place, held=held, visibility=limit)
    elif issubclass(transport, pyamqp.Transport):
        for queue in app.amqp.queues.values():
            mode = queue.exchange.delivery_mode or app.conf.task_default_delivery_mode
            if not queue.durable or mode in TRANSIENT:
                why = f"durable={queue.durable}, delivery_mode={mode}"
                yield finding_of("message-not-durable", f"queue {queue.name}", why=why)


def probe(app: Celery[Any], *, workers: bool) -> tuple[list[Finding], set[str]]:
    """Ask the broker of *app* whether it keeps jobs, and *workers* for the queues they consume."""
    findings: list[Finding] = []
    consumed: set[str] = set()

    def ask(_: threading.Event) -> None:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            channel: Any = connection.default_channel
            if issubclass(transport_of(app), kombu_redis.Transport):
                findings.extend(ask_redis(channel.client))
        answers = app.control.inspect(timeout=1.0).active_queues() if workers else {}
        for queues in (answers or {}).values():
            consumed.update(f"queue {one['name']}" for one in queues)

    why = f"no answer within {PROBE_SECONDS:g} s"
    try:
        if publish_within(PROBE_SECONDS, ask):
            return findings, consumed
    except (redis.RedisError, AttributeError, LookupError, TypeError, *PUBLISH_ERRORS) as error:
        why = str(error) or repr(error)
    return [*findings, finding_of("cannot-tell", "broker", what="what it does", why=why)], consumed


def ask_redis(client: Any) -> Iterator[Finding]:  # noqa: ANN401 - redis-py's, or kombu's of it
    """Yield what is wrong with the server of *client*, as far as it tells."""
    settings: dict[str, Any] = {}
    asks = (client.info, "memory"), (client.info, "persistence"), (client.config_get, "save")
    for ask, what in asks:
        with suppress(redis.ResponseError):  # its user may not ask
            settings |= ask(what)
    policy, limit = settings.get("maxmemory_policy"), settings.get("maxmemory")
    log, saves = settings.get("aof_enabled"), settings.get("save")
    if policy is None or log is None or (not log and saves is None):
        what = "whether it evicts, and keeps jobs on disk,"
        yield finding_of("cannot-tell", "broker", what=what, why="it refuses INFO or CONFIG GET")
    if policy is not None and policy.startswith(DROPS_QUEUES):
        severity = "warning" if limit == 0 else None  # never full, so far
        yield finding_of("broker-evicts", "broker", severity, policy=policy, limit=limit)
    if log == 0 and saves == "":
        yield finding_of("broker-not-persistent", "broker")


def check_queues(
    app: Celery[Any], known: Mapping[str, Dependency], answers: Iterable[Answer]
) -> Iterator[Finding]:
    """Yield queues that jobs go to and that no worker of `up` consumes."""
    served = {queue for dependency in known.values() for queue in dependency.queues}
    for answer in answers:
        for queue in _queues_of(app, answer) - served - {app.conf.task_default_queue}:
            place = f"queue {queue}"
            yield finding_of("queue-without-worker", place, of=answer.task.name, queue=queue)


def _queues_of(app: Celery[Any], answer: Answer) -> set[str]:
    """Return the queues that jobs of a task go to, by its routes and by the schedule."""
    own = answer.task._get_exec_options()  # noqa: SLF001 - as Celery does
    own = {name: value for name, value in own.items() if value is not None}
    queues = set()
    for options in answer.options or [{}]:
        with suppress(Exception):  # by a route of the app's own, which needs arguments
            route = app.amqp.router.route({**own, **options}, answer.task.name, (), {}, answer.task)
            queues.add(route["queue"].name)
    return queues
