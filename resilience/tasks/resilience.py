"""What one Celery app declares, and the parts that its tasks share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery, Task

from resilience.breaker import Breaker, NoBreaker
from resilience.broker.amqp import confirm_publishes
from resilience.bulkhead import AdaptiveLimit, Slots
from resilience.dependency import Catalogue, Dependency
from resilience.errors import ConfigurationError
from resilience.events import Event, Listener, LogLines, announce, log_event
from resilience.fallback import Entry
from resilience.flags import Feature, Features, FollowProvider
from resilience.flags.gate import FeatureGate
from resilience.flags.policy import SheddingPolicy
from resilience.flags.reports import JobTimes
from resilience.levels import Level
from resilience.pipeline import Pipeline
from resilience.settings import Settings
from resilience.store.absent import NoStore
from resilience.tasks.admission import Admission
from resilience.tasks.consistent import Consistent
from resilience.tasks.defaults import miss_no_result
from resilience.tasks.degradation import Degradation, degradation_of
from resilience.tasks.drilling import drill_at_end_of_job
from resilience.tasks.following import apply_defaults, follow
from resilience.tasks.passing import pass_values
from resilience.tasks.router import BulkheadRouter
from resilience.tasks.routing import (
    ask_last,
    check_default_queue,
    check_when_final,
    connect_safely,
    know_queues,
)
from resilience.tasks.sending import send_as_tasks_do
from resilience.tasks.serialization import carry_answers
from resilience.tasks.shared import Shared, check_names, check_unadopted, open_shared
from resilience.tasks.steps import add_steps
from resilience.text import hide_names


class Resilience(Consistent):
    """Adopts a Celery app: bulkhead queues, routes, safe defaults.

    Nothing is global: all of it hangs on the app, as `app.resilience`. A setting that the app makes
    itself, before or after, is never overwritten.

    Attributes:
        app: The Celery app.
        settings: Operator settings.
        dependencies: What was declared, by name; `features` likewise.
        listeners: Who hears of events; a listener that is appended hears of them from then on.
        intent: Provider whose flags are orders, if any.
        router: Which bulkhead a job belongs to.
        admission: Whether there is room for another job.
        time_limit_seconds: Hard limit of the worker that this is the main process of, if any.
        limits: Of jobs at once, by dependency, in a worker's main process where they are adaptive.
        shedding_policy: When features are shed without an order.
        job_times: Of the worker that this is the main process of, if its app has features.
        note_part: Notes that the worker that this is the main process of took a part of a fan-out.
    """

    def __init__(
        self,
        app: Celery[Any],
        *,
        dependencies: Iterable[Dependency],
        features: Iterable[Feature] = (),
        intent: FollowProvider | None = None,
        shedding: SheddingPolicy | None = None,
        settings: Settings | None = None,
        listeners: Sequence[Listener] = (log_event,),
    ) -> None:
        """Adopt *app*; connects to nothing.

        Args:
            app: Any Celery app, configured already or later.
            dependencies: What its tasks call.
            features: What may be shed to save the rest; see docs/flags.md.
            intent: Provider whose flags are orders; see docs/openfeature.md.
            shedding: When features are shed and restored without an order.
            settings: By default read from `RESILIENCE_*` variables.
            listeners: Who hears of events.

        Raises:
            ConfigurationError: Names or queues clash, one is unknown, or *app* cannot be adopted.
        """
        check_unadopted(app)
        self.app = app
        self.settings = settings or Settings.from_environment()
        self.dependencies = Catalogue(dependencies)
        self.features = Features(features, self.dependencies)
        self.intent = intent
        self.shedding_policy = shedding or SheddingPolicy()
        hide_names(self.settings.redact)
        lines = LogLines(self.settings.log_format)
        # A list that all parts share: who is appended later hears of everything, too.
        self.listeners = [lines if one is log_event else one for one in listeners]
        self.time_limit_seconds: float | None = None
        self.router = BulkheadRouter(app, self.dependencies)
        self.admission = Admission(app, self.dependencies, self.announce)
        self.limits: dict[str, AdaptiveLimit] = {}
        self.job_times: JobTimes | None = None
        self.note_part: Callable[[], object] = bool
        self._shared: dict[str, Shared] = {}
        self._queues_clear = False
        if app.finalized:  # type: ignore[attr-defined]
            for task in app.tasks.values():
                self.check_task(type(task))
            self.router.check_all()
        if app.configured:  # type: ignore[attr-defined]
            self.check_queues()
            self._on_configured()
        else:
            follow(app, self.settings)
        # Also when the app is configured again, with another source.
        app.on_after_configure.connect(self._on_configured, weak=False)
        add_steps(app)
        carry_answers()
        connect_safely(app)
        miss_no_result(app)
        confirm_publishes(app)
        pass_values(app, self.announce)
        ask_last(app, self._route)
        send_as_tasks_do(app, self.router, self.admission)
        know_queues(app, [name for one in self.dependencies.values() for name in one.queues])
        check_when_final(app, self._check_final)
        app.resilience = self  # type: ignore[attr-defined]
        for listener in self.listeners:
            if (attach := getattr(listener, "attach", None)) is not None:
                attach(self)

    @staticmethod
    def of(app: Celery[Any]) -> "Resilience":
        """Return what *app* declared.

        Raises:
            ConfigurationError: It was never adopted.
        """
        found = getattr(app, "resilience", None)
        if not isinstance(found, Resilience):
            msg = (
                f"{app!r} declares no dependencies; add Resilience(app, dependencies=[…]) behind "
                "the line that makes the app; on a command line name it: celery -A module …"
            )
            if app.main == "default":
                msg += (
                    "; if your app declares them, a shared task ran in a thread that does not know "
                    "it: call app.set_default() where you make the app"
                )
            raise ConfigurationError(msg)
        return found

    @property
    def degradation(self) -> Degradation:
        """What is open, held or shed now, as far as this process knows."""
        return degradation_of(self.app, self._share(), self.dependencies)

    @property
    def level(self) -> Level:
        """The worst of that: the level of the whole app."""
        return self.degradation.level

    def breaker(self, dependency: str) -> Breaker | NoBreaker:
        """Return the breaker of *dependency*, the one that its pipelines and tasks use.

        Raises:
            ConfigurationError: The dependency is unknown.
        """
        self.dependencies.require(dependency, where="breaker")
        return self._share().breakers[dependency]

    def slots(self, dependency: str) -> Slots | None:
        """Return the slots of *dependency*, the ones of its pipelines and tasks; None: no cap.

        Raises:
            ConfigurationError: The dependency is unknown.
        """
        self.dependencies.require(dependency, where="slots")
        return self._share().slots.get(dependency)

    def pipeline(
        self,
        dependency: str,
        *,
        name: str = "",
        feature: str | None = None,
        fallbacks: Sequence[Entry] = (),
        neutral: tuple[type[Exception], ...] = (),
    ) -> Pipeline:
        """Return a pipeline to call *dependency* through, from a task or from anywhere else.

        Args:
            dependency: Name of a declared dependency.
            name: What is called, for events; by default the dependency's name.
            feature: Name of a declared feature; while it is shed the fallbacks answer.
            fallbacks: Steps in non-decreasing level.
            neutral: Exceptions that are no failure.

        Raises:
            ConfigurationError: A name is unknown, or *fallbacks* are no chain.
        """
        where = f"pipeline {name or dependency!r}"
        found = self.dependencies.require(dependency, where=where)
        made = Pipeline(
            name or dependency,
            found,
            self.answers,
            breaker=self.breaker(dependency),
            slots=self.slots(dependency),
            gate=self.gate(feature, where=where),
            fallbacks=fallbacks,
            neutral=neutral,
            listeners=self.listeners,
        )
        drill_at_end_of_job(made)
        if self.injector is not None:
            self.injector.wrap(made)
        return made

    def gate(self, feature: str | None, *, where: str, trials: bool = True) -> FeatureGate | None:
        """Return the gate before calls of *feature*, if they are part of one.

        Raises:
            ConfigurationError: The feature is unknown; the message says *where* it is named.
        """
        if feature is not None:
            self.features.require(feature, where=where)
        return None if feature is None else FeatureGate(feature, self.flags, trials=trials)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let tasks run where they are called and share nothing, until the end of the block.

        For unit tests: neither broker, store nor ledger is asked, whatever the app's settings say,
        and breakers, flags and slots begin anew. What the app has taken from here before, such as a
        pipeline of a module, keeps its own.
        """
        conf: Any = self.app.conf
        eager, shared = conf.task_always_eager, self._shared
        places = [vars(task) for task in self.app.tasks.values()]
        pipelines = [place.pop("_pipeline", None) for place in places]
        made = open_shared(
            self.app,
            self.settings,
            self.dependencies,
            self.features,
            self.listeners,
            store=NoStore("the app runs alone, without a store"),
        )
        self._shared, conf.task_always_eager = {"made": made}, True
        try:
            yield
        finally:
            self._shared, conf.task_always_eager = shared, eager
            for place, pipeline in zip(places, pipelines, strict=True):
                place["_pipeline"] = pipeline  # made for what was shared

    def announce(self, event: Event) -> None:
        """Tell the app's listeners of *event*."""
        announce(event, self.listeners)

    def check_task(self, task: type[Task[Any, Any]]) -> None:
        """Check that *task* names a declared dependency, if it names one.

        Raises:
            ConfigurationError: No app declares that one, or another dependency claims the task.
        """
        check_names(task, self.dependencies, self.features)
        if task.name:
            self.router.check(task.name, task)

    def check_tasks(self) -> None:
        """Check all tasks of the app, of whatever class, and its queues.

        Raises:
            ConfigurationError: As `check_task` and `check_queues`.
        """
        for task in self.app.tasks.values():
            self.check_task(type(task))
        self._check_final()

    def _check_final(self) -> None:
        self.check_queues()
        self.router.check_all()

    def check_queues(self) -> None:
        """Check that every bulkhead has a queue of its own; Celery then reads its configuration.

        Raises:
            ConfigurationError: A dependency's queue is also the app's default queue.
        """
        check_default_queue(self.app, self.dependencies)
        self._queues_clear = True
        carry_answers()  # also what was registered since

    def _share(self) -> Shared:
        shared = self._shared.get("made")
        if shared is None:
            made = open_shared(
                self.app, self.settings, self.dependencies, self.features, self.listeners
            )
            # No lock: a child that is forked meanwhile would wait for a thread that it has not.
            shared = self._shared.setdefault("made", made)
        return shared

    def _on_configured(self, **_: object) -> None:
        self._queues_clear = False
        apply_defaults(self.app, self.settings)

    def _route(
        self,
        name: str,
        _args: object,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        task: Task[Any, Any] | None = None,
        **_: object,
    ) -> Mapping[str, str] | None:
        if not self._queues_clear:
            self.check_queues()
        queue = self.router.queue(name, kwargs, options, task)
        return None if queue is None else {"queue": queue}
