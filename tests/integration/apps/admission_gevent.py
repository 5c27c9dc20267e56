"""A crowd of greenlets that publish to a bulkhead of which nothing is known; prints who got in.

Run by `python -m gevent.monkey`, with the variables of `admission.py`.
"""

import json
import sys
from collections import Counter

import gevent

from resilience import BulkheadFullError
from resilience.tasks import admission
from tests.integration.apps.admission import app, plain

CROWD = 100
READING_SECONDS = 60.0
"""How long a publish waits for a depth here: on a busy machine a reading takes long."""


def publish(number: int) -> str:
    """Publish one job, and say what came of it."""
    try:
        plain.apply_async((number,), lane="critical")
    except BulkheadFullError:
        return "refused"
    return "published"


def main() -> None:
    """Publish once, for a connection, forget all depths, and let the crowd come."""
    admission.WAIT_SECONDS = READING_SECONDS
    told = Counter([publish(0)])
    resilience = app.resilience  # type: ignore[attr-defined] # adopted
    resilience.admission = admission.Admission(app, resilience.dependencies, resilience.announce)
    crowd = [gevent.spawn(publish, number) for number in range(1, CROWD)]
    gevent.joinall(crowd)
    json.dump(told + Counter(one.value for one in crowd), sys.stdout)


if __name__ == "__main__":
    main()
