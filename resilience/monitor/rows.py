"""What the fleet has agreed on, and what its ledger keeps, as rows of plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from resilience.breaker import Breaker
from resilience.errors import StoreUnavailableError
from resilience.ledger import Count, Letter, Letters, Which
from resilience.tasks.resilience import Resilience
from resilience.text import hide_in_text

ERROR_LENGTH = 200
"""Most characters of an error in a row."""


def connected(adopted: Resilience) -> Resilience:
    """Return *adopted* once the store has said what is agreed.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses; we would show our ignorance.
        ConfigurationError: The app has no store.
    """
    adopted.store.run(lambda client: client.time())  # the pulse needs it as well
    adopted.pulse.refresh()
    if adopted.pulse.scope == "local":
        msg = "the store answers, but refuses a pulse: is it full, read-only or without EVAL?"
        raise StoreUnavailableError(msg)
    return adopted


def breakers_of(adopted: Resilience) -> dict[str, Breaker]:
    """Return the breakers of the app by dependency; what is guarded by none is left out."""
    gates = {name: adopted.breaker(name) for name in adopted.dependencies}
    return {name: gate for name, gate in gates.items() if isinstance(gate, Breaker)}


def flag_rows(adopted: Resilience) -> list[dict[str, Any]]:
    """Return what this process knows of each feature; times are fleet time in seconds."""
    rows, flags, document = [], adopted.flags, adopted.flags.document
    for name, feature in flags.features.items():
        decision, order = flags.decide(name), document.orders.get(name)
        measured = document.costs.get(name)
        row = {**asdict(decision), "level": decision.level.name}
        row["order_version"] = order.version if order else 0
        row["cost"] = measured.model_dump() if measured else {"seconds": feature.cost}
        rows.append(row)
    return rows


def count_row(count: Count) -> dict[str, Any]:
    """Return a count of the ledger's jobs."""
    overdue = count.overdue_seconds
    rounded = None if overdue is None else round(overdue, 1)
    return {**asdict(count), "state": str(count.state), "overdue_seconds": rounded}


def cause_rows(letters: Letters, which: Which, *, limit: int) -> list[dict[str, Any]]:
    """Return the causes of *which* dead letters, those with the most letters first."""
    same = ("task", "dependency", "reason", "fingerprint")
    return [
        {"letters": jobs, "oldest": oldest, "newest": newest, "last_error": last_error(example)}
        | {name: getattr(example, name) for name in same}
        for jobs, oldest, newest, example in letters.causes(which, limit=limit)
    ]


def last_error(letter: Letter) -> str:
    """Return class and text of the last error of *letter*, on one line and shortened."""
    error = letter.errors[-1] if letter.errors else "no error was kept"
    if isinstance(error, dict):
        error = f"{str(error.get('type')).rpartition('.')[2]}: {error.get('text')}"
    return hide_in_text(" ".join(str(error).split()))[:ERROR_LENGTH]


def queues_of(adopted: Resilience) -> list[str]:
    """Return the queues of the dependencies and the app's other queues, each once.

    A queue that only a function of `task_routes` names is not among them.
    """
    amqp, conf = adopted.app.amqp, adopted.app.conf
    own = [queue for owner in adopted.dependencies.values() for queue in owner.queues]
    others = [conf.task_default_queue, *amqp.Queues(conf.task_queues), *_routed(conf.task_routes)]
    return list(dict.fromkeys([*own, *others]))


def queues_named(adopted: Resilience, name: str) -> set[str]:
    """Return the queues that an order about *name* means: of a dependency all, or just that one."""
    owner = adopted.dependencies.get(name)
    return {name, *(owner.queues if owner else ())}


def held_queues(adopted: Resilience) -> set[str]:
    """Return the queues that workers take nothing from: by an order, or as a circuit is open."""
    names = set[str]()
    for reason in adopted.degradation.reasons:
        waits = reason.kind == "open" and adopted.dependencies[reason.name].on_open == "hold"
        if waits or reason.kind == "held":
            names |= queues_named(adopted, reason.name)
    return names


def _routed(routes: Any) -> Iterator[str]:  # noqa: ANN401 - Celery takes many forms
    for table in routes if isinstance(routes, list | tuple) else [routes]:
        for options in table.values() if isinstance(table, Mapping) else ():
            queue = options.get("queue") if isinstance(options, Mapping) else options
            name = getattr(queue, "name", queue)
            if isinstance(name, str):
                yield name
