"""A fresh process that publishes jobs to a broker that is down, and prints what each took.

`python -m benchmarks.publish_app BROKER_URL LEDGER_URL`: a JSON object of seconds. `first`: the
first job of the process; `at_once`: those right behind it; `again`: the first one after a while.
"""

import json
import sys
import threading
from time import perf_counter

from celery import Celery

from resilience import Dependency, Resilience
from resilience.settings import Settings
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.outbox import AVOID_SECONDS

JOBS = 5
"""Jobs that a process publishes."""


def main(broker_url: str, ledger_url: str) -> None:
    """Publish all, one after the other."""
    app = Celery("benchmarks", broker=broker_url)
    Resilience(
        app,
        dependencies=[Dependency("mail")],
        settings=Settings(ledger_url=ledger_url),
        listeners=[],
    )

    @app.task(base=FireAndForgetTask, dependency="mail")
    def send(number: int) -> int:
        return number

    app.finalize()

    def timed() -> float:
        began = perf_counter()
        send.fire(1)
        return perf_counter() - began

    first, at_once = timed(), [timed(), timed()]
    again = []
    for _ in range(JOBS - 3):
        threading.Event().wait(AVOID_SECONDS)
        again.append(timed())
    print(json.dumps({"first": [first], "at_once": at_once, "again": again}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
