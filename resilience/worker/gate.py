"""Decides, in a worker's event loop, from which queues it takes jobs and how many at once."""

import random
from dataclasses import dataclass, field
from typing import Any

from celery import bootsteps
from celery.bootsteps import RUN  # type: ignore[attr-defined] # missing in the stubs
from celery.concurrency.prefork import TaskPool as PreforkPool

from resilience.breaker import State
from resilience.bulkhead import AdaptiveLimit, Course, Mode, jobs_at_once, next_course
from resilience.clock import SystemClock
from resilience.compat import size_of
from resilience.dependency import Dependency
from resilience.events import QueueHeld, QueueReleased
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.guard import is_lost
from resilience.worker.throttle import Throttle

logger = get_logger(__name__)

TICK_SECONDS = 0.25
ORDERS_SECONDS = 1.0
"""How often a worker looks at what can change how it takes jobs; the latter, if only orders can."""
REFUSING = (State.OPEN, State.FORCED_OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why queues are held."""

    reason: str
    actor: str
    until: float | None


@dataclass(slots=True)
class Bulkhead:
    """Queues of this worker that are held together: those of a dependency, or any other one.

    Attributes:
        why: Why they are held, if they are.
        said: What was announced last.
        singles: Those of its queues that can be held by themselves.
    """

    name: str
    queues: tuple[str, ...]
    dependency: Dependency | None
    course: Course = field(default_factory=Course)
    why: Why | None = None
    said: Why | None = None
    singles: list["Bulkhead"] = field(default_factory=list)


class Gate(bootsteps.StartStopStep):
    """Takes no jobs from a queue while it is held, few at first when it is so no longer.

    It asks nobody: `Lookout`, or `FanInSweeper` where there is none, keeps fresh what it knows.
    Started again with every connection, it goes on where it was; what it holds is not consumed in
    between.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare; nothing is known of the worker's queues yet."""
        super().__init__(consumer, **options)
        self._resilience = Resilience.of(consumer.app)
        self._bulkheads: list[Bulkhead] | None = None
        self._throttle: Throttle | None = None
        self._timer: Any = None
        self._waiting = False

    def start(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Begin with a connection from which nothing is consumed yet."""
        if self._bulkheads is None:
            self._bulkheads = self._grouped(list(consumer.app.amqp.queues.consume_from))
            self._learn(consumer)
        self._throttle = Throttle(consumer)
        self._apply(consumer)
        seconds = TICK_SECONDS if self._is_steered() or self._throttle.is_static else ORDERS_SECONDS
        self._timer = consumer.timer.call_repeatedly(seconds, self._tick, (consumer,))

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """End with the connection; what is held stays held."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._throttle is not None:
            self._throttle.end()

    shutdown = stop

    def _grouped(self, queues: list[str]) -> list[Bulkhead]:
        found = []
        for one in self._resilience.dependencies.values():
            own = tuple(name for name in one.queues if name in queues)
            if own:
                # The queue that bears the dependency's name stands for all of them.
                singles = [Bulkhead(name, (name,), None) for name in own if name != one.name]
                found.append(Bulkhead(one.name, own, one, singles=singles))
                queues = [name for name in queues if name not in own]
        return found + [Bulkhead(name, (name,), None) for name in queues]

    def _learn(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        """Ask once, before anything is consumed: a worker may start while a hold is in force."""
        if self._resilience.why_no_store is None:
            self._resilience.holds.look()
            self._resilience.pulse.refresh()
        one = self._alone()
        if one is not None and one.dependency is not None and one.dependency.adaptive is not None:
            dice = random.Random()  # noqa: S311 - jitter is no secret
            limit = AdaptiveLimit(
                one.dependency.adaptive, maximum=size_of(consumer.pool), dice=dice
            )
            self._resilience.limits[one.name] = limit

    def _is_steered(self) -> bool:
        """Tell whether a circuit or a latency says how many jobs are taken."""
        every = [one.dependency for one in self._bulkheads or () if one.dependency is not None]
        return any(one.on_open == "hold" or one.adaptive is not None for one in every)

    def _alone(self) -> Bulkhead | None:
        """Return the worker's only bulkhead: with several, no limit of one would be its own."""
        return self._bulkheads[0] if self._bulkheads and len(self._bulkheads) == 1 else None

    def _tick(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        if consumer.hub is not None:
            self._apply(consumer)
        elif not self._waiting:
            # The timer has a thread or greenlet of its own, which must not touch the connection.
            self._waiting = True
            consumer.call_soon(self._apply, consumer)

    def _apply(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        self._waiting = False
        if consumer.task_consumer is None or consumer.blueprint.state != RUN:
            return
        try:
            for one in self._bulkheads or ():
                self._steer(consumer, one)
            if self._throttle is not None and self._alone() is None:
                self._throttle.settle()
        except Exception as error:
            if is_lost(error, (*consumer.connection_errors, *consumer.channel_errors)):
                raise
            # A defect: the worker must go on.
            logger.exception("gate")
        every = [each for one in self._bulkheads or () for each in (one, *one.singles)]
        held = [one for one in every if one.why is not None]
        consumer.controller.held_queues = {queue for one in held for queue in one.queues}

    def _steer(self, consumer: Any, one: Bulkhead) -> None:  # noqa: ANN401 - Celery's
        now, full = SystemClock.monotonic(), size_of(consumer.pool)
        state, ordered = self._state(consumer, one), self._ordered(one)
        why = ordered or self._refused(one, state)
        held = why is not None
        one.course = next_course(
            one.course, held=held, probing=state is State.HALF_OPEN, full=full, now=now
        )
        if held:
            one.why = why  # first: if the connection is lost now, the next one is to go on from it
            self._cancel(consumer, one)
        if self._throttle is not None and one is self._alone():
            self._throttle.limit(self._most(one, full, now), full=full)
        if not held and one.why is not None:
            apart = {single.name for single in one.singles if single.why is not None}
            for queue in one.queues:
                if queue not in apart:
                    consumer.add_task_queue(queue)
        one.why = why
        self._announce(consumer, one)
        for single in one.singles:
            self._steer_single(consumer, single, within=one)

    def _steer_single(self, consumer: Any, one: Bulkhead, *, within: Bulkhead) -> None:  # noqa: ANN401 - Celery's
        """Hold one queue of a bulkhead by itself, or go on with it unless all are held."""
        why = self._ordered(one)
        if why is not None:
            one.why = why  # first, as above
            self._cancel(consumer, one)
        elif one.why is not None:
            if within.why is None:
                consumer.add_task_queue(one.name)
            one.why = None
        self._announce(consumer, one)

    def _cancel(self, consumer: Any, one: Bulkhead) -> None:  # noqa: ANN401 - Celery's
        for queue in one.queues:
            consuming = consumer.task_consumer.consuming_from(queue)
            if consuming or queue in consumer.app.amqp.queues.consume_from:
                consumer.cancel_task_queue(queue)

    def _state(self, consumer: Any, one: Bulkhead) -> State:  # noqa: ANN401 - Celery's
        if one.dependency is None or one.dependency.on_open != "hold":
            return State.CLOSED
        if self._resilience.pulse.scope == "local" and isinstance(consumer.pool, PreforkPool):
            # Each child decides alone, and none of them tells this process.
            return State.CLOSED
        return self._resilience.breaker(one.name).known_state

    def _ordered(self, one: Bulkhead) -> Why | None:
        time = self._resilience.fleet_time(older=float("inf"))
        found = self._resilience.holds.known(one.name, time)
        if found is None:
            return None
        return Why(reason=found.reason, actor=found.actor, until=found.until)

    def _refused(self, one: Bulkhead, state: State) -> Why | None:
        if state not in REFUSING:
            return None
        return Why(reason=f"the circuit of {one.name} is {state}", actor="breaker", until=None)

    def _most(self, one: Bulkhead, full: int, now: float) -> int:
        most = jobs_at_once(one.course, full=full, now=now)
        adaptive = self._resilience.limits.get(one.name)
        if adaptive is not None and one.course.mode in {Mode.FULL, Mode.RAMPING}:
            most = min(most, adaptive.at(now))
        return max(1, most)

    def _announce(self, consumer: Any, one: Bulkhead) -> None:  # noqa: ANN401 - Celery's
        """Say that jobs are held or taken again; a worker that only probes says nothing new."""
        why, said = one.why, one.said
        if why is not None and (said is None or said.actor != why.actor):
            one.said = why
            self._say(QueueHeld, consumer, one, why, why.reason)
        elif why is None and said is not None and one.course.mode is not Mode.PROBING:
            one.said = None
            self._say(QueueReleased, consumer, one, said, f"no longer held: {said.reason}")

    def _say(
        self,
        event: type[QueueHeld | QueueReleased],
        consumer: Any,  # noqa: ANN401 - Celery's
        one: Bulkhead,
        why: Why,
        reason: str,
    ) -> None:
        said = event(
            queue=one.name,
            worker=consumer.hostname,
            reason=reason,
            actor=why.actor,
            until=why.until,
        )
        self._resilience.announce(said)
