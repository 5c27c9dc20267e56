"""Makes a worker that includes this module say on standard error that it is ready.

The worker's own line comes at level INFO only, in the format of the app's logging; this one
always comes.
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
