"""What the fleet has agreed on, as rows of plain values: circuits, features and queues."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from resilience.breaker import Breaker
from resilience.errors import StoreUnavailableError
from resilience.flags.document import Document
from resilience.ledger import Count
from resilience.tasks.resilience import Resilience


def connected(adopted: Resilience) -> Resilience:
    """Return *adopted* once the store has said what is agreed.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses; we would show our ignorance.
        ConfigurationError: The app has no store.
    """
    adopted.store.run(lambda client: client.ping())
    adopted.pulse.refresh()
    if adopted.pulse.scope == "local":
        msg = "the store answers, but refuses a pulse: is it full, read-only or without EVAL?"
        raise StoreUnavailableError(msg)
    return adopted


def breakers_of(adopted: Resilience) -> dict[str, Breaker]:
    """Return the breakers of the app by dependency; what is guarded by none is left out."""
    found = {name: adopted.breaker(name) for name in adopted.dependencies}
    return {name: one for name, one in found.items() if isinstance(one, Breaker)}


def flag_rows(adopted: Resilience) -> list[dict[str, Any]]:
    """Return what this process knows of each feature; times are fleet time in seconds."""
    flags = adopted.flags
    return [_flag_row(adopted, name, flags.document) for name in flags.features]


def _flag_row(adopted: Resilience, name: str, document: Document) -> dict[str, Any]:
    found, order = adopted.flags.decide(name), document.orders.get(name)
    cost: dict[str, Any] = {"seconds": adopted.features[name].cost}
    if name in document.costs:
        cost = document.costs[name].model_dump()
    version = order.version if order else 0
    return {**asdict(found), "level": found.level.name, "order_version": version, "cost": cost}


def count_row(one: Count) -> dict[str, Any]:
    """Return a count of the ledger's jobs."""
    overdue = one.overdue_seconds
    return {
        "dependency": one.dependency,
        "state": str(one.state),
        "jobs": one.jobs,
        "more": one.more,
        "overdue_seconds": None if overdue is None else round(overdue, 1),
    }


def queues_of(adopted: Resilience) -> list[str]:
    """Return the queues of the dependencies and the app's other queues, each once.

    A queue that only a function of `task_routes` names is not among them.
    """
    conf = adopted.app.conf
    declared = conf.task_queues or ()
    names = declared if isinstance(declared, Mapping) else [one.name for one in declared]
    own = [queue for one in adopted.dependencies.values() for queue in one.queues]
    return list(dict.fromkeys([*own, conf.task_default_queue, *names, *_routed(conf.task_routes)]))


def _routed(routes: Any) -> Iterator[str]:  # noqa: ANN401 - Celery takes many forms
    for one in routes if isinstance(routes, list | tuple) else [routes]:
        for options in one.values() if isinstance(one, Mapping) else ():
            queue = options.get("queue") if isinstance(options, Mapping) else options
            name = getattr(queue, "name", queue)
            if isinstance(name, str):
                yield name
