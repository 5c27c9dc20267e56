"""A caller that is killed right after its fan-out is published; prints when it began.

Run with the key of the callback and the budget in seconds.
"""

import os
import signal
import sys
import time

from resilience.tasks import FanOut
from tests.integration.apps.parts import app


def main(key: str, budget: float) -> None:
    """Publish, and be killed."""
    do = app.tasks
    began = time.perf_counter()
    FanOut(slow=do["hold"].s(key, 1), fast=do["echo"].s(2)).apply_async(
        budget=budget, on_complete=do["note"].s(key)
    )
    print(began, flush=True)  # noqa: T201 - the moment
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
