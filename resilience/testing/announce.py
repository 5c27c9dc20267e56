"""Makes a worker that includes this module write on standard error that it is ready.

Celery's own line is written at level INFO only, in the format of the app's logging. This one is
always written.
"""

import os

from celery.signals import worker_ready

READY = "worker is ready to consume"
STDERR = 2


@worker_ready.connect(weak=False)
def announce(**_: object) -> None:
    """Write the line that `run_worker` waits for."""
    # Not through sys.stderr: Celery turns that into log records of level WARNING.
    os.write(STDERR, f"{READY}\n".encode())
