"""Tasks that are published here by name, and run where their code is."""

from typing import Any

from celery import Celery, Task

from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.router import Owner
from resilience.tasks.task import ResilientTask


class StandIn:
    """Publishes one task as its class would, without what subclasses of the app add to that."""

    def __init__(self, task: ResilientTask) -> None:
        """Publish *task*."""
        self._task = task

    def publish(self, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - as Celery's
        """Publish with *options* of `Celery.send_task`; return a result."""
        options.pop("task_type", None)
        result_class = options.pop("result_cls", None)
        options["producer"] = options.pop("publisher", None) or options.get("producer")
        kind = FireAndForgetTask if isinstance(self._task, FireAndForgetTask) else ResilientTask
        result = kind.apply_async(self._task, args, kwargs, **options)
        return result if result_class is None else result_class(result.id)


class StandIns:
    """Makes stand-ins for the tasks of one app."""

    def __init__(self, app: Celery[Any]) -> None:
        """Make the classes for tasks that are known only by name."""
        self._kinds: dict[bool, type[ResilientTask]] = {}
        for kept, base in ((False, ResilientTask), (True, FireAndForgetTask)):
            body = {"run": _run, "typing": False, "is_remote": True, "__module__": __name__}
            kind: Any = type("RemoteTask", (base,), body)
            kind.bind(app)
            self._kinds[kept] = kind

    def of(self, name: str, owner: Owner, task: Task[Any, Any] | None) -> StandIn | None:
        """Return what publishes the task *name* of *owner*; *task* is that task, if it is known."""
        if task is None:
            made = self._kinds[owner.fire_and_forget]()
            vars(made).update(name=name, dependency=owner.dependency.name, lane=owner.lane)
            return StandIn(made)
        if not isinstance(task, ResilientTask):
            return None
        made = object.__new__(type(task))
        # Celery checks no arguments of what is published by name.
        vars(made).update(vars(task), typing=False)
        return StandIn(made)


def _run(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - never run
    msg = f"{self.name} runs where its code is"
    raise NotImplementedError(msg)
