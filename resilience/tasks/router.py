"""Finds whose job is published, and its queue if neither call nor route names one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, Task

from resilience.bulkhead import NORMAL, Lane
from resilience.dependency import Catalogue, Dependency
from resilience.errors import ConfigurationError
from resilience.tasks.envelope import lane_in
from resilience.text import get_logger

logger = get_logger(__name__)

BUILT_IN: Final = "celery."
"""How the names of Celery's own tasks begin."""
WARNINGS_MAX: Final = 100
"""An app that makes up names as it goes is not warned of each."""
MAPS: Final = frozenset({"celery.map", "celery.starmap"})
"""Tasks of Celery that call another task in their place: it stands in their argument `task`."""
PLACES: Final = ("queue", "exchange", "routing_key")
DECLARED: Final = ("dependency", "lane", "fire_and_forget")


@dataclass(frozen=True, slots=True)
class Owner:
    """The dependency and lane that a job belongs to.

    Attributes:
        dependency: The one that the task's body calls.
        lane: The task's own.
        fire_and_forget: Whether the outbox keeps it.
    """

    dependency: Dependency
    lane: Lane
    fire_and_forget: bool


class BulkheadRouter:
    """Finds the bulkhead of a job by the name that is published, or by the task itself."""

    def __init__(self, app: Celery[Any], dependencies: Catalogue) -> None:
        """Route jobs of *app* to *dependencies*."""
        self._app = app
        self._dependencies = dependencies
        self._warned: set[str] = set()

    def queue(
        self,
        name: object,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        task: Task[Any, Any] | None = None,
    ) -> str | None:
        """Return the queue of a job's bulkhead, None if it belongs to none.

        Args:
            name: Of the task, or the one that the job is routed by.
            kwargs: Of the job.
            options: Of the job.
            task: The task, or its class, if its publisher has it.

        Raises:
            ConfigurationError: The task names an unknown dependency.
        """
        owner = self.owner(name, kwargs, task)
        if owner is None:
            if not any(options.get(place) for place in PLACES):
                self._warn(called_by(getattr(task, "name", name), kwargs) or name, task)
            return None
        return owner.dependency.queue_of(lane_in(options.get("headers"), owner.lane))

    def owner(
        self, name: object, kwargs: Mapping[str, Any] | None, task: Task[Any, Any] | None = None
    ) -> Owner | None:
        """Return whose job it is, None if nobody's. Arguments and errors as of `queue`."""
        declared = task
        if task is None or task.name != name:
            # A map is published under its own type and routed by the name of what it calls.
            declared = self.task(name) or task
        dependency = getattr(declared, "dependency", None)
        if dependency is not None:
            known = self._dependencies.require(dependency, where=f"task {name}")
            return Owner(known, getattr(declared, "lane", NORMAL), _is_kept(declared))
        inner = called_by(getattr(declared, "name", name), kwargs)
        if inner is not None:
            return self.owner(inner, None)
        unknown = declared is None or declared.name != name
        return self._named(name) if unknown else None

    def check(self, name: str, task: object) -> None:
        """Check that *task*, called *name*, is what the patterns of dependencies say.

        Raises:
            ConfigurationError: A process that knows only its name would publish it in another way.
        """
        said, dependency = self._named(name), getattr(task, "dependency", None)
        if said is None or (dependency is not None and dependency not in self._dependencies):
            return  # or it is another app's
        own = (dependency, getattr(task, "lane", NORMAL), _is_kept(task))
        wanted = (said.dependency.name, said.lane, said.fire_and_forget)
        for what, mine, theirs in zip(DECLARED, own, wanted, strict=True):
            if mine != theirs:
                msg = (
                    f"task {name} has {what}={mine!r}, but by the tasks that dependency "
                    f"{said.dependency.name!r} names it has {what}={theirs!r}; let both say the "
                    "same, as processes that do not import the task go by its name"
                )
                raise ConfigurationError(msg)

    def check_all(self) -> None:
        """Check all tasks that Celery has made so far; raises as `check`."""
        if self._dependencies.has_patterns:
            app: Any = self._app
            for name, task in app._tasks.copy().items():  # noqa: SLF001 - `tasks` would make more
                self.check(name, task)

    def task(self, name: object) -> Task[Any, Any] | None:
        """Return the task called *name*, None if this process does not know it."""
        app: Any = self._app
        # An app that is not to be finalized by itself may still publish by name.
        tasks = app.tasks if app.finalized or app.autofinalize else app._tasks  # noqa: SLF001
        return tasks.get(name) if isinstance(name, str) else None

    def _named(self, name: object) -> Owner | None:
        if not isinstance(name, str) or name.startswith(BUILT_IN):
            return None
        found = self._dependencies.pattern_of(name)
        if found is None:
            return None
        return Owner(found[0], found[1].lane, found[1].fire_and_forget)

    def _warn(self, name: object, task: object) -> None:
        """Say once that nobody knows the task *name*, which goes to the default queue."""
        if not self._dependencies or not isinstance(name, str) or name.startswith(BUILT_IN):
            return
        if name in self._warned or len(self._warned) >= WARNINGS_MAX:
            return
        if getattr(task, "name", None) == name or self.task(name) is not None:
            return
        self._warned.add(name)
        queue = self._app.conf.task_default_queue
        logger.warning(
            "%s goes to the default queue %r: this process has not imported such a task, and no "
            "dependency names it. If it calls a dependency, say so there: "
            "Dependency(…, tasks=[%r]); if it calls none, give it a route: task_routes={%r: %r} "
            "(logged once)",
            name,
            queue,
            name,
            name,
            queue,
        )


def _is_kept(task: object) -> bool:
    return bool(getattr(task, "_kept", False))


def called_by(name: object, kwargs: Mapping[str, Any] | None) -> str | None:
    """Return the name of the task that a job *name* with *kwargs* calls in its place, if any."""
    if name not in MAPS or not kwargs:
        return None
    inner = kwargs.get("task")
    # A signature is a mapping; a task has a name; and a name is one.
    named = inner.get("task") if isinstance(inner, Mapping) else getattr(inner, "name", inner)
    return named if isinstance(named, str) else None
