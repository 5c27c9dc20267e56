"""A process that publishes to the bulkhead of `admission.py` until it is full; prints how much.

Run with the variables of `admission.py`.
"""

from resilience import BulkheadFullError
from resilience.tasks import admission
from tests.integration.apps.admission import plain

TIMES = 100
READING_SECONDS = 60.0
"""How long a publish waits for a depth here: on a busy machine a reading takes long."""


def main() -> None:
    """Publish so many times, and print how many jobs were admitted."""
    admission.WAIT_SECONDS = READING_SECONDS
    published = 0
    for _ in range(TIMES):
        try:
            plain.apply_async((1,), lane="critical")
        except BulkheadFullError:
            continue
        published += 1
    print(published)  # noqa: T201 - the figure


if __name__ == "__main__":
    main()
