"""What all tasks of an app share in one process."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery import Celery, Task
from celery._state import _get_active_apps  # type: ignore[attr-defined] # missing in the stubs

from resilience.breaker import Breaker, NoBreaker, State
from resilience.broker.addresses import find_store
from resilience.bulkhead import Holds, Renewal, Slots, Spares
from resilience.consistency.shared import SharedPositions
from resilience.dependency import Catalogue, Dependency
from resilience.errors import ConfigurationError
from resilience.events import Listener
from resilience.faults import Fault, Injector
from resilience.flags import Features, Flags
from resilience.flags.document import Order
from resilience.flags.faults import Faults
from resilience.pulse import Pulse
from resilience.settings import Settings
from resilience.store import Answers, FanIn, Releases, Store
from resilience.store.absent import NoStore
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.store.slots import SlotStore
from resilience.tasks.identity import identity_of
from resilience.tasks.neutral import NEUTRAL
from resilience.tasks.serialization import dumps, loads
from resilience.text import hide_in_text

if TYPE_CHECKING:
    from resilience.ledger import Ledger

NAMESPACE = "resilience"
"""Not the app's main name: who publishes and who works often have different ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shared:
    """What all tasks of the app share, made when the first of them needs it."""

    store: Store
    answers: Answers
    fan_in: FanIn | None
    ledger: Callable[[], "Ledger"]
    releases: Releases
    pulse: Pulse
    breakers: Mapping[str, Breaker | NoBreaker]
    holds: Holds
    spares: Spares
    slots: Mapping[str, Slots]
    flags: Flags
    faults: Faults
    injector: Injector | None
    positions: SharedPositions


def open_shared(
    app: Celery[Any],
    settings: Settings,
    dependencies: Catalogue,
    features: Features,
    listeners: Sequence[Listener],
    *,
    store: Store | None = None,
) -> Shared:
    """Make it, in *store* or the one that the settings name; connects to nothing.

    Raises:
        ConfigurationError: An address is of a form that is none.
    """
    if store is None:
        store = _open_store(app, settings, listeners)
    answers = Answers(store, dumps=dumps, loads=loads)
    alone = isinstance(store, NoStore)
    pulse = Pulse(None if alone else StoreFleet(store))
    breakers = {one.name: _breaker(one, pulse, listeners) for one in dependencies.values()}
    ledger = _opener(settings, listeners)

    def keep(name: str, order: Order) -> None:
        ledger().orders.keep(name, order)

    flags = Flags(
        features,
        pulse,
        None if alone else FlagStore(store),
        keep=keep,
        half_open=lambda name: name in breakers and breakers[name].known_state is State.HALF_OPEN,
        listeners=listeners,
    )
    if settings.chaos and not alone:
        pulse.watch(flags)  # it also brings the faults; without features nothing else asked for it
    faults = Faults(
        flags,
        pulse,
        dependencies,
        own=[Fault.model_validate(one) for one in settings.faults],
        allowed=settings.chaos,
        listeners=listeners,
    )
    return Shared(
        store=store,
        answers=answers,
        fan_in=None if alone else FanIn(store, answers, owner=identity_of(app)),
        ledger=ledger,
        releases=Releases(None if alone else store),
        pulse=pulse,
        breakers=breakers,
        holds=Holds(store, time=pulse.refresh, listeners=listeners),
        spares=Spares(store),
        slots=_slots(dependencies, None if alone else store, listeners),
        flags=flags,
        faults=faults,
        injector=Injector(faults.active, listeners) if settings.chaos else None,
        positions=SharedPositions(store),
    )


def _opener(settings: Settings, listeners: Sequence[Listener]) -> Callable[[], "Ledger"]:
    """Return what returns the ledger, which is made when it is needed first."""
    opened: dict[str, Ledger] = {}

    def ledger() -> "Ledger":
        if "made" not in opened:
            from resilience.ledger.ledger import Ledger  # noqa: PLC0415 - see resilience.ledger

            made = Ledger(
                settings.ledger_url,
                redact=settings.redact,
                namespace=settings.namespace or NAMESPACE,
                listeners=listeners,
            )
            opened.setdefault("made", made)  # no lock, as in `Resilience`
        return opened["made"]

    return ledger


def _slots(
    dependencies: Catalogue, store: Store | None, listeners: Sequence[Listener]
) -> Mapping[str, Slots]:
    leases = SlotStore(store) if store is not None else None
    renewal = Renewal(leases, listeners=listeners) if leases is not None else None
    return {
        one.name: Slots(one.name, one.slots, store=leases, renewal=renewal, listeners=listeners)
        for one in dependencies.values()
        if one.slots is not None
    }


def _breaker(
    dependency: Dependency, pulse: Pulse, listeners: Sequence[Listener]
) -> Breaker | NoBreaker:
    if dependency.breaker is None:
        return NoBreaker()
    # A probe keeps its permit for as long as its call may take.
    lease = max(dependency.breaker.probe_seconds, (dependency.timeout or 0.0) + 1.0)
    policy = dataclasses.replace(dependency.breaker, probe_seconds=lease)
    return Breaker(
        dependency.name,
        pulse,
        policy,
        neutral=NEUTRAL,
        bugs=dependency.bugs,
        listeners=listeners,
    )


def _open_store(app: Celery[Any], settings: Settings, listeners: Sequence[Listener]) -> Store:
    conf: Any = app.conf
    results, broker = conf.result_backend_transport_options, conf.broker_transport_options
    url = (
        settings.store_url
        or find_store(conf.result_backend, results or {}, conf.redis_backend_use_ssl)
        or find_store(conf.broker_url, broker or {}, conf.broker_use_ssl)
    )
    if url is None:
        backend = hide_in_text(str(conf.result_backend)) if conf.result_backend else None
        return NoStore(
            "no store: set RESILIENCE_STORE_URL to a Redis or Valkey, "
            f"as neither the result backend {backend!r} nor the broker is one"
        )
    return Store(
        url,
        namespace=settings.namespace or NAMESPACE,
        timeout_seconds=settings.store_timeout_seconds,
        listeners=listeners,
    )


def check_unadopted(app: object) -> None:
    """Check that *app* can be adopted.

    Raises:
        ConfigurationError: It is no Celery app, or was adopted before.
    """
    if not isinstance(app, Celery):
        msg = f"{app!r} is no Celery app; write Resilience(app, dependencies=[…])"
        raise ConfigurationError(msg)
    if getattr(app, "resilience", None) is not None:
        msg = f"{app!r} has been adopted already; call Resilience(app, …) once"
        raise ConfigurationError(msg)


def check_names(task: type[Task[Any, Any]], dependencies: Catalogue, features: Features) -> None:
    """Check that *task* names a declared dependency and feature, if it names any.

    Raises:
        ConfigurationError: It names a dependency that no app of this process declares, or an
            unknown feature.
    """
    dependency = getattr(task, "dependency", None)
    # Celery registers a task with every app of the process unless it says `shared=False`, so
    # one that another app's dependency suits is that app's; this one cannot publish it.
    if dependency is not None and not declared_elsewhere(dependency):
        dependencies.require(dependency, where=f"task {task.name or task.__qualname__}")
    feature = getattr(task, "feature", None)
    if (
        feature is not None
        and dependency in dependencies
        and not declared_elsewhere(feature, "features")
    ):
        features.require(feature, where=f"task {task.name or task.__qualname__}")


def declared_elsewhere(name: object, kind: str = "dependencies") -> bool:
    """Tell whether any adopted app of this process declares *name*, as one of a *kind*."""
    if not isinstance(name, str):
        return False
    adopted = (getattr(app, "resilience", None) for app in _get_active_apps())
    return any(name in getattr(one, kind, ()) for one in adopted)
