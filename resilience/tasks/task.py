"""The task class whose calls go through the pipeline."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from celery import Celery, Task
from celery.app.task import Context
from celery.canvas import _chain, chord, group
from celery.exceptions import Ignore, Reject

from resilience.errors import ConfigurationError
from resilience.fallback import Step
from resilience.outcome import Outcome
from resilience.partial import outcome_of
from resilience.store import Slot
from resilience.tasks.attempt import TaskPipeline
from resilience.tasks.declaration import check_declaration
from resilience.tasks.reporting import report_failure, report_value, slot_header, slot_of
from resilience.tasks.resilience import Resilience


class Replaced(Ignore):
    """Another signature took the task's place and its id; that one will report."""


class ResilientTask(Task[Any, Any]):
    """A Celery task whose body calls one dependency.

    Use it as the `base` of a decorated task or subclass it. In all else it is a Celery task;
    without `dependency` it is nothing but that, and can still be part of a fan-out.

    A task that declares fallbacks returns an `Outcome`, always. One that declares none returns its
    plain value and raises. An `Outcome` handed to it as an argument (by the task before it in a
    chain) is unwrapped for the body; the task then returns an `Outcome` whose level is at
    least that one's.

    Attributes:
        dependency: Name of the dependency that the body calls; the task goes to its queue.
        fallbacks: Steps that answer when the body cannot, in non-decreasing level.

    Raises:
        ConfigurationError: When the class or the task is made: *fallbacks* are no chain, stand
            without a dependency (unless the class is `abstract` itself), hold a value that
            cannot be sent or a function that cannot be called in the body's place; a name is
            misspelt; a `__call__` does not call `super()`; or the dependency is unknown.
    """

    abstract = True
    Request = "resilience.worker.request:ResilientRequest"

    dependency: ClassVar[str | None] = None
    fallbacks: ClassVar[Sequence[Step]] = ()

    _pipeline: TaskPipeline | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - whatever the class statement says
        super().__init_subclass__(**kwargs)
        cls.fallbacks = check_declaration(cls, within=ResilientTask)

    @classmethod
    def on_bound(cls, app: Celery[Any]) -> None:
        """Check the task against the app's dependencies, if those are declared already."""
        resilience: Resilience | None = getattr(app, "resilience", None)
        if resilience is not None:
            resilience.check_task(cls)

    @property
    def resilience(self) -> Resilience:
        """What the task's app declared.

        Raises:
            ConfigurationError: The app never called `Resilience(app, …)`.
        """
        return Resilience.of(self.app)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - what the body returns
        """Run the body through the pipeline."""
        slot = self._slot_entered()
        try:
            value = self._run(args, kwargs)
        except Replaced:
            raise
        except (Ignore, Reject) as error:
            if slot is not None and not getattr(error, "requeue", False):
                report_failure(self.resilience, slot, error)
            raise
        if slot is not None and slot.last:
            report_value(self.resilience, slot, value)
        return value

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Celery's
        """Publish the task, as Celery does.

        Raises:
            ConfigurationError: It has a dependency, and the app never called `Resilience(app, …)`:
                it would go to the default queue.
        """
        if self.dependency is not None:
            _ = self.resilience
        return super().apply_async(*args, **kwargs)

    def replace(self, sig: Any) -> Any:  # noqa: ANN401 - as Celery's
        """Replace this task; what replaces it reports to the same fan-out.

        Raises:
            ConfigurationError: The task is a part, and the one that would answer in its place is no
                `ResilientTask`.
        """
        slot = slot_of(self.request.headers)
        if slot is not None:
            sig = _with_body(sig)
            _hand_over(sig, slot)
        try:
            return super().replace(sig)
        except Ignore as done:
            raise Replaced(*done.args) from None

    def on_failure(
        self,
        exc: Exception,
        task_id: str,  # noqa: ARG002 - Celery's signature
        args: Any,  # noqa: ANN401, ARG002
        kwargs: Any,  # noqa: ANN401, ARG002
        einfo: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Tell the fan-out that the part failed for good. Overriding methods call `super()`."""
        slot = self._slot()
        if slot is not None:
            report_failure(self.resilience, slot, exc)

    def _slot(self) -> Slot | None:
        request: Context | None = self.request_stack.top
        if request is None or request.called_directly:
            return None
        return slot_of(request.headers)

    def _slot_entered(self) -> Slot | None:
        """Return where this run reports; None for a body that calls its own task as a function."""
        request: Context | None = self.request_stack.top
        if request is None or request.get("entered"):
            return None
        request.update(entered=True)
        return self._slot()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        degraded = _worst([*args, *kwargs.values()])
        if degraded is not None:
            args = tuple(_unwrapped(value) for value in args)
            kwargs = {name: _unwrapped(value) for name, value in kwargs.items()}
        if self.dependency is None:
            value = super().__call__(*args, **kwargs)
        else:
            if self._pipeline is None:
                self._pipeline = TaskPipeline(
                    self, self.dependency, tuple(self.fallbacks), self.resilience
                )
            value = self._pipeline.call(super().__call__, *args, **kwargs)
        return value if degraded is None else _carry(degraded, value)


def _with_body(sig: Any) -> Any:  # noqa: ANN401 - any canvas
    """Return *sig* with one task at its end, as Celery itself would replace it."""
    last = sig.tasks[-1] if isinstance(sig, _chain) else sig
    return sig | sig.app.tasks["celery.accumulate"].s(index=0) if isinstance(last, group) else sig


def _hand_over(sig: Any, slot: Slot) -> None:  # noqa: ANN401 - any canvas
    """Let the last task of *sig* report its value to *slot*, and each of them its failure."""
    before: Sequence[Any]
    if isinstance(sig, _chain):
        *before, last = sig.tasks
    elif isinstance(sig, chord):
        before, last = sig.tasks, sig.body
    elif isinstance(sig, group):
        before, last = sig.tasks, None
    else:
        if slot.last and not isinstance(sig.type, ResilientTask):
            msg = f"{sig.task} cannot replace part {slot.part!r}: it is no ResilientTask"
            raise ConfigurationError(msg)
        sig.set(headers={**(sig.options.get("headers") or {}), **slot_header(slot)})
        return
    for one in before:
        _hand_over(one, dataclasses.replace(slot, last=False))
    if last is not None:
        _hand_over(last, slot)


def _unwrapped(value: object) -> object:
    if isinstance(value, Outcome):
        return value.value
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    return value


def _worst(values: list[Any]) -> Outcome[Any] | None:
    """Return the worst outcome among *values* and the lists in them, None if there is none."""
    worst: Outcome[Any] | None = None
    for value in values:
        if isinstance(value, list):
            value = _worst(value)  # noqa: PLW2901 - a chord's body gets a list of outcomes
        if isinstance(value, Outcome) and (worst is None or value.level > worst.level):
            worst = value
    return worst


def _carry(before: Outcome[Any], value: object) -> Outcome[Any]:
    """Return *value* as an outcome at least as degraded as what it was made from."""
    outcome = outcome_of(value)
    if outcome.level >= before.level:
        return outcome
    return dataclasses.replace(before, value=outcome.value)
