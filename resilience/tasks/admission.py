"""Whether a job may be published: the depth of its dependency's lanes, asked for once a second."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery

from resilience.broker.lengths import length_of
from resilience.bulkhead import LANES, Lane, Room
from resilience.clock import SystemClock
from resilience.compat import callback_publish
from resilience.dependency import Catalogue, Dependency
from resilience.errors import BulkheadFullError, ConfigurationError, text_of
from resilience.events import Event, JobRefused
from resilience.tasks.envelope import LANE_HEADER, lane_in
from resilience.tasks.publishing import PublishTimeoutError, publish_within
from resilience.text import get_logger

logger = get_logger(__name__)

WAIT_SECONDS = 0.1
"""A publish waits so long for a depth; one that comes later serves the next."""
AVOID_SECONDS = 1.0
"""A broker that did not tell a depth is asked for none so long."""

_goes_on: ContextVar[bool] = ContextVar("goes_on_with_a_job", default=False)


@contextmanager
def going_on() -> Iterator[None]:
    """Let what is published in the block be the rest of a job that has begun."""
    token = _goes_on.set(True)
    try:
        yield
    finally:
        _goes_on.reset(token)


def goes_on(options: Mapping[str, Any]) -> bool:
    """Tell whether what is published here, with these *options*, is the rest of a begun job.

    Celery publishes callbacks, chain steps and the bodies of chords in one way of its own, and
    gives what it publishes behind a job, errbacks among it, that job as its parent.
    """
    parent = options.get("parent_id") is not None
    return parent or bool(_goes_on.get()) or bool(callback_publish.get())


def check_lane(lane: object, where: str) -> Lane:
    """Return *lane*.

    Raises:
        ConfigurationError: It is none.
    """
    for known in LANES:
        if lane == known:
            return known
    msg = f"{where}: lane must be one of {', '.join(LANES)}, got {lane!r}"
    raise ConfigurationError(msg)


def with_lane(headers: Mapping[str, Any] | None, lane: object, task: str) -> dict[str, Any]:
    """Return message *headers* of a job of *task* that its publisher puts into *lane*, if any.

    Raises:
        ConfigurationError: It is none.
    """
    said = dict(headers or {})
    if lane is not None:
        said[LANE_HEADER] = check_lane(lane, f"task {task}")
    return said


class Admission:
    """Holds publishers to the `max_queue` of each dependency.

    One a process and app. No publish waits for a broker that is slow or away: then no depth is
    known, everybody is admitted, and the publish itself says what there is to say.
    """

    def __init__(
        self, app: Celery[Any], dependencies: Catalogue, announce: Callable[[Event], None]
    ) -> None:
        """Know no depth yet."""
        self._app = app
        self._announce = announce
        self._avoid_until = 0.0
        self._bulkheads: dict[str, tuple[Dependency, Room]] = {
            one.name: (one, Room(one.max_queue, concurrency=one.concurrency, timeout=one.timeout))
            for one in dependencies.values()
            if one.max_queue is not None
        }

    def ask(
        self, task: str, dependency: str | None, own: Lane, options: Mapping[str, Any]
    ) -> BulkheadFullError | None:
        """Return why a job is not to be published, if so; count it in if not.

        Args:
            task: Its name.
            dependency: Whose job it is, if anybody's.
            own: The lane of its task.
            options: Of its `apply_async`; what goes to another queue is not asked about.
        """
        if dependency not in self._bulkheads:
            return None
        known, room = self._bulkheads[dependency]
        lane = _lane_of(known, own, options)
        if lane is None:
            return None
        if goes_on(options):
            room.count()
            return None
        self._refresh(known, room)
        full = room.enter(lane)
        if full is None:
            return None
        self._announce(
            JobRefused(
                task=task,
                dependency=known.name,
                depth=full.depth,
                max_queue=room.max_queue,
                lane=lane,
            )
        )
        return BulkheadFullError(known.name, round(full.retry_after, 3))

    def lets_in(self, dependency: str, queue: str) -> bool:
        """Tell whether there is room for a job that is put into *queue*; count it in if so."""
        known, room = self._bulkheads.get(dependency, (None, None))
        lane = None if known is None else known.lane_of(queue)
        if known is None or room is None or lane is None:
            return True
        self._refresh(known, room)
        return room.enter(lane) is None

    def depth_share(self, dependency: str) -> float:
        """Return how full the lanes are, as a share of `max_queue`; NaN: not known.

        Raises:
            KeyError: *dependency* has no `max_queue`.
        """
        known, room = self._bulkheads[dependency]
        self._refresh(known, room)
        depth = room.depth()
        return float("nan") if depth is None else depth / room.max_queue

    def full_queues(self) -> list[str]:
        """Return the queues that are known to have no room, without asking for any depth."""
        return [
            known.queue_of(lane)
            for known, room in self._bulkheads.values()
            for lane in LANES
            if room.is_full(lane)
        ]

    def _refresh(self, known: Dependency, room: Room) -> None:
        """Take a reading if it is time, and wait for it a little.

        So does who comes meanwhile, if no depth is known: a crowd must not pass one that asks, and
        keep the connections busy that it asks through.
        """
        if SystemClock.monotonic() < self._avoid_until:
            return
        if not room.claim():
            room.await_reading(WAIT_SECONDS)
            return
        try:
            in_time = publish_within(WAIT_SECONDS, lambda _: self._read(known, room))
        except PublishTimeoutError:
            in_time = False
            room.tell(None)
        if not in_time:
            self._avoid()

    def _read(self, known: Dependency, room: Room) -> None:
        depth = None
        try:
            with self._app.producer_or_acquire(None) as producer:
                depth = sum(depth_of(self._app, producer, name) for name in known.lane_queues)
        except Exception as error:  # noqa: BLE001 - the publish itself says it
            logger.debug("the depth of %s is not known: %s", known.name, text_of(error))
            self._avoid()
        finally:
            room.tell(depth)

    def _avoid(self) -> None:
        self._avoid_until = SystemClock.monotonic() + AVOID_SECONDS


def depth_of(app: Celery[Any], producer: Any, name: str) -> int:  # noqa: ANN401 - kombu's
    """Ask the broker how many messages wait in the queue *name*."""
    queue = app.amqp.queues[name]
    producer.maybe_declare(queue)
    try:
        return length_of(producer.channel, queue.name)
    except producer.connection.channel_errors:
        # RabbitMQ forgets a queue when somebody deletes it: it is declared again with the next
        # message.
        producer.connection.declared_entities.clear()
        return 0


def _lane_of(known: Dependency, own: Lane, options: Mapping[str, Any]) -> Lane | None:
    """Return the lane that a job with these *options* goes to; None: to no queue of *known*."""
    queue = options.get("queue")
    if queue is not None:
        return known.lane_of(str(getattr(queue, "name", queue)))
    if options.get("exchange") or options.get("routing_key"):
        return None
    return lane_in(options.get("headers"), own)
