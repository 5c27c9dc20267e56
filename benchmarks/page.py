"""What one look of Flower's Degradation page takes, at the server, in a large app.

50 dependencies with 200 queues, in a fifth of which jobs wait, and 100,000 dead letters of 40
causes. Of two looks the first warms what is kept; the letters of one cause are read as well.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from celery import Celery
from sqlalchemy import insert

from benchmarks.figure import Figure
from resilience import Dependency, Resilience
from resilience.ledger import State, Which
from resilience.ledger.tables import JOBS
from resilience.settings import Settings
from resilience.testing.valkey import ValkeyProcess

DEPENDENCIES = 50
LETTERS = 100_000
CAUSES = 40
BOUND_SECONDS = 0.3
MESSAGE = json.dumps({"args": ["x" * 400], "kwargs": {}, "headers": {}, "names": ["key"]})


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer looks."""
    logging.getLogger("resilience").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory))
        server.start()
        try:
            yield from asyncio.run(_measure(server.url, Path(directory), looks=5 if quick else 20))
        finally:
            server.stop()


async def _measure(url: str, directory: Path, looks: int) -> list[Figure]:
    app: Celery[Any] = Celery("benchmarks", broker=url, backend=url, set_as_current=False)
    ledger = f"sqlite:///{directory / 'ledger.sqlite3'}"
    adopted = Resilience(
        app,
        dependencies=[Dependency(f"dependency-{number}") for number in range(DEPENDENCIES)],
        settings=Settings(store_url=url, ledger_url=ledger, store_timeout_seconds=5),
    )
    app.finalize()
    _fill(adopted)
    flower = _flower(app)
    seconds, text = [], ""
    for _ in range(looks):
        flower.view._began = float("-inf")  # noqa: SLF001 - else it is the look before
        began = perf_counter()
        text = json.dumps(await flower.view.read())
        seconds.append(perf_counter() - began)
    began = perf_counter()
    flower.letters.find(Which(fingerprint="cause-7"), 50)
    letters = perf_counter() - began
    flower.executor.shutdown()
    adopted.ledger.close()
    sides = {"dependencies": DEPENDENCIES, "letters": LETTERS, "bytes": len(text), "looks": looks}
    return [
        Figure(
            name="page_look",
            value=max(seconds[1:]),
            unit="s",
            bound=BOUND_SECONDS,
            sides={**sides, "first": round(seconds[0], 4), "least": round(min(seconds), 4)},
        ),
        Figure(name="page_letters", value=letters, unit="s", bound=BOUND_SECONDS),
    ]


def _flower(app: Celery[Any]) -> Any:  # noqa: ANN401 - Flower has no types
    from flower.options import default_options  # type: ignore[import-untyped]  # noqa: PLC0415
    from flower.urls import settings  # type: ignore[import-untyped]  # noqa: PLC0415

    from resilience.monitor.flower import install  # noqa: PLC0415 - as Flower's configuration does
    from resilience.monitor.flower.app import DegradationFlower  # noqa: PLC0415 - as above

    install()
    options = SimpleNamespace(**default_options.as_dict())
    return DegradationFlower(options=options, capp=app, **settings)


def _fill(adopted: Resilience) -> None:
    """Put messages into queues and letters into the ledger."""
    with adopted.app.producer_or_acquire(None) as producer:
        for dependency in list(adopted.dependencies.values())[::5]:
            for queue in dependency.queues:
                where = adopted.app.amqp.queues[queue]
                producer.publish({}, declare=[where], routing_key=where.routing_key)
    adopted.ledger.upgrade()
    row = {"state": State.DEAD, "message": MESSAGE, "errors": "", "attempts": 3, "dispatches": 0}
    row |= {"created": 1.0, "born": 1.0, "task": "shop.deliver", "reason": "exhausted"}
    rows = [
        {
            **row,
            "id": f"letter-{number}",
            "died": 1000.0 + number,
            "fingerprint": f"cause-{number % CAUSES}",
            "dependency": f"dependency-{number % DEPENDENCIES}",
            "queue": f"dependency-{number % DEPENDENCIES}.retry",
        }
        for number in range(LETTERS)
    ]
    with adopted.ledger._database.writing() as connection:  # noqa: SLF001 - nothing else makes so many
        connection.execute(insert(JOBS), rows)
