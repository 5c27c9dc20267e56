"""A remote service that jobs call, and the limits of its bulkhead."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from resilience.breaker.policy import BreakerPolicy
from resilience.budget import SECONDS_MAX
from resilience.bulkhead import LANES, NORMAL, Lane, lane_of, queue_of, queue_rank
from resilience.bulkhead.adaptive import AdaptiveConcurrency
from resilience.declared import Declared, name_first
from resilience.errors import BUGS, ConfigurationError
from resilience.retry import RetryPolicy

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
"""Names become queue names, key parts and process names, so they stay plain."""
Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.{][A-Za-z0-9_.:/@{}+-]*$", max_length=240)]
"""No spaces, commas or leading dash: it stands behind `-Q` of `celery worker`. With
`.sheddable.dead` behind it it has at most 255 characters, as brokers and databases demand."""
DEFAULT_WORKER: Final = "default"
"""Name of the worker of the app's default queue, which `celery resilience up` runs."""
WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TaskPattern:
    """Tasks of a dependency by their names, for processes that publish but do not import them.

    Attributes:
        pattern: A task's name, or a pattern with `*`, `?` and `[…]` that fits several.
        fire_and_forget: Whether they are `FireAndForgetTask`s, whose jobs the outbox keeps.
        lane: Their lane.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
    """

    pattern: Annotated[str, Field(min_length=1, max_length=255)]
    _: KW_ONLY
    fire_and_forget: bool = False
    lane: Lane = NORMAL


def _as_patterns(given: Iterable[str | TaskPattern]) -> tuple[TaskPattern, ...]:
    return tuple(TaskPattern(one) if isinstance(one, str) else one for one in given)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Dependency:
    """A remote service that jobs call, with a queue and workers of its own.

    Attributes:
        name: Lower-case letters, digits, `_` and `-`; unique in the app.
        concurrency: Jobs its worker runs at once, at least 1.
        timeout: Seconds one attempt may take, more than 0; None: only a budget limits it. With a
            timeout, a call in a thread other than the main one runs in a helper thread; the body of
            a job on the threads pool shares one thread with its signals. See docs/budget.md.
        queue: Name of its Celery queue, without spaces or commas; by default the dependency's.
            One that the app defines in `task_queues` is used as defined there.
        pool: Celery pool of its worker.
        breaker: When its circuit opens; None: never.
        retry: When a fire-and-forget job that failed runs again.
        retry_share: Most retries per job, of the whole fleet within ten seconds, in [0, 1]: jobs
            that have run and are due again wait, but for ten a second. Retries of Celery's own,
            redeliveries and replays count, too. None: no limit.
        slots: Most calls in flight of the whole fleet, at least 1, from wherever they are made;
            None: no limit.
        prefetch: Messages a worker reserves per process, at least 1. More than 1 lets one slow
            job hold up the messages reserved behind it.
        max_queue: Most jobs that may wait in its lanes, at least 1; publishers hold to it, see
            docs/admission.md. None: no limit.
        on_open: What becomes of jobs while the circuit is open. `fail_fast`: they fail, or their
            fallbacks answer. `hold`: they wait in the broker; its workers take none.
        adaptive: Lets its worker run fewer jobs at once while the dependency is slow.
        bugs: Exceptions that no answer of the dependency can cause: they are raised past every
            fallback and count for no breaker. See docs/errors.md.
        tasks: Names of its tasks, or patterns as in `task_routes`, for processes that publish them
            by name and do not import them; see docs/routing.md. A string stands for a
            `TaskPattern` with its defaults.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
    """

    name: Name
    _: KW_ONLY
    concurrency: Annotated[int, Field(ge=1)] = 4
    timeout: Annotated[float, Field(gt=0, le=SECONDS_MAX)] | None = 5.0
    queue: Queue = ""
    pool: Literal["prefork", "threads", "gevent", "solo"] = "prefork"
    prefetch: Annotated[int, Field(ge=1)] = 1
    slots: Annotated[int, Field(ge=1)] | None = None
    breaker: BreakerPolicy | None = BreakerPolicy()
    retry: RetryPolicy = RetryPolicy()
    retry_share: Annotated[float, Field(ge=0, le=1)] | None = 0.2
    max_queue: Annotated[int, Field(ge=1)] | None = None
    on_open: Literal["fail_fast", "hold"] = "fail_fast"
    adaptive: AdaptiveConcurrency | None = None
    bugs: tuple[type[Exception], ...] = BUGS
    tasks: Annotated[Sequence[str | TaskPattern], AfterValidator(_as_patterns)] = ()

    _name_first = model_validator(mode="before")(name_first)

    def __post_init__(self) -> None:
        """Let the queue bear the dependency's name unless told otherwise.

        Raises:
            ValueError: The name is the one of the default queue's worker, or the queue's name is
                one of another lane.
        """
        if self.name == DEFAULT_WORKER:
            msg = (
                f"no dependency may be called {DEFAULT_WORKER!r}: the worker of the app's default "
                "queue is; choose another name"
            )
            raise ValueError(msg)
        if not self.queue:
            object.__setattr__(self, "queue", self.name)
        if queue_rank(self.queue) != queue_rank(self.name):
            suffix = self.queue.rpartition(".")[2]
            msg = f"queue={self.queue!r} must not end in .{suffix}, which stands for a lane"
            raise ConfigurationError(msg)
        if self.on_open == "hold" and self.breaker is None:
            msg = "on_open='hold' needs a breaker: without one its circuit never opens"
            raise ValueError(msg)
        if self.adaptive is not None and self.adaptive.minimum > self.concurrency:
            msg = (
                f"adaptive.minimum ({self.adaptive.minimum}) is more than "
                f"concurrency ({self.concurrency})"
            )
            raise ValueError(msg)

    @property
    def retry_queue(self) -> str:
        """Where jobs go that run again; its workers serve it after the queue itself."""
        return f"{self.queue}.retry"

    @property
    def lane_queues(self) -> tuple[str, ...]:
        """Where its jobs are published to, in the order in which workers serve them."""
        return tuple(queue_of(self.queue, lane) for lane in LANES)

    @property
    def queues(self) -> tuple[str, ...]:
        """All its queues, in the order in which workers serve them."""
        return (*self.lane_queues, self.retry_queue)

    def queue_of(self, lane: Lane) -> str:
        """Return the queue of *lane*."""
        return queue_of(self.queue, lane)

    def lane_of(self, queue: str) -> Lane | None:
        """Return the lane whose queue is *queue*, None if it is none of them."""
        return lane_of(self.queue, queue)


class Catalogue(Declared[Dependency]):
    """The dependencies of one app, by name."""

    kind = "dependency"

    def __init__(self, dependencies: Iterable[Dependency]) -> None:
        """Collect *dependencies*.

        Raises:
            ConfigurationError: They are no list, one of them is no `Dependency`, or two share a
                name, a queue or a pattern of tasks.
        """
        given: object = dependencies
        if isinstance(given, str) or not isinstance(given, Iterable):
            msg = f"dependencies={given!r} is no list; write [Dependency(name, …), …]"
            raise ConfigurationError(msg)
        super().__init__()
        queues: dict[str, str] = {}
        for dependency in dependencies:
            if not isinstance(dependency, Dependency):
                msg = f"{dependency!r} is no dependency; declare Dependency(name, …)"
                raise ConfigurationError(msg)
            if dependency.name in self._by_name:
                msg = f"dependency {dependency.name!r} is declared twice; names must be unique"
                raise ConfigurationError(msg)
            for queue in (dependency.queue, *dependency.queues):
                if other := queues.get(queue):
                    msg = (
                        f"dependencies {other!r} and {dependency.name!r} share the queue "
                        f"{queue!r}; a bulkhead needs queues of its own"
                    )
                    raise ConfigurationError(msg)
            self._by_name[dependency.name] = dependency
            queues |= dict.fromkeys(dependency.queues, dependency.name)
        self._patterns = _by_precedence(self._by_name.values())

    @property
    def has_patterns(self) -> bool:
        """Tell whether any dependency names its tasks."""
        return bool(self._patterns)

    def pattern_of(self, task: str) -> tuple[Dependency, TaskPattern] | None:
        """Return the dependency that names *task* among its own, and the pattern that fits.

        A name without wildcards decides first, then the longest pattern.
        """
        for found, known, pattern in self._patterns:
            if found(task):
                return known, pattern
        return None


def _by_precedence(
    dependencies: Iterable[Dependency],
) -> list[tuple[Callable[[str], object], Dependency, TaskPattern]]:
    """Return all patterns of tasks, those that decide before others in front.

    Raises:
        ConfigurationError: One stands twice.
    """
    owners: dict[str, Dependency] = {}
    declared: list[tuple[Dependency, TaskPattern]] = []
    for one in dependencies:
        for pattern in _as_patterns(one.tasks):
            if other := owners.get(pattern.pattern):
                msg = (
                    f"dependencies {other.name!r} and {one.name!r} both name the tasks "
                    f"{pattern.pattern!r}; a task calls one dependency"
                )
                raise ConfigurationError(msg)
            owners[pattern.pattern] = one
            declared.append((one, pattern))

    def precedence(item: tuple[Dependency, TaskPattern]) -> tuple[bool, int]:
        text = item[1].pattern
        return bool(WILDCARDS.intersection(text)), -len(text)

    return [
        (re.compile(fnmatch.translate(pattern.pattern)).match, one, pattern)
        for one, pattern in sorted(declared, key=precedence)
    ]
