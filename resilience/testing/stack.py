"""Celery workers of an importable app, for the length of a `with` block.

Needs psutil.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from resilience.testing import announce
from resilience.testing.process import ServerProcess, import_path

LOG_LEVEL = "INFO"


class WorkerProcess(ServerProcess):
    """A running `celery worker` and its pool.

    Attributes:
        hostname: Node name, as `inspect` and `control` take it for a destination.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        hostname: str,
        env: Mapping[str, str],
        log_path: Path,
        include: Sequence[str] = (),
    ) -> None:
        """Describe the worker; `start` starts it, also again after `kill` or `stop`.

        Args:
            command: The command line without `-n` and `-I`, which this class adds.
            hostname: Node name.
            env: Variables on top of the inherited environment.
            log_path: File for its log.
            include: Further modules that it imports before it is ready.
        """
        options = ["-n", hostname, "-I", ",".join((announce.__name__, *include))]
        super().__init__(
            [*command, *options],
            ready=announce.READY,
            log_path=log_path,
            env={"PYTHONPATH": import_path(), **env},
        )
        self.hostname = hostname


@contextmanager
def run_worker(
    app_path: str,
    *,
    queues: Sequence[str],
    concurrency: int = 2,
    pool: str = "prefork",
    env: Mapping[str, str] | None = None,
    hostname: str | None = None,
    loglevel: str = LOG_LEVEL,
    extra: Sequence[str] = (),
) -> Iterator[WorkerProcess]:
    """Run `celery -A app_path worker` as a real process, and stop it at the end of the block.

    A prefork worker takes 2 to 3 s to stop; kill it first where its shutdown does not matter. Its
    log can be read until the block ends; an exception that leaves the block gets the log's tail as
    a note.

    Args:
        app_path: Module of the app, as `celery -A` takes it; a worker can import what the test can.
        queues: Names of the queues to consume from.
        concurrency: Processes, threads or greenlets of the pool.
        pool: prefork, threads, gevent, eventlet or solo.
        env: Variables on top of the inherited environment; Celery itself reads CELERY_BROKER_URL
            and CELERY_RESULT_BACKEND.
        hostname: Node name, `name@host`; None: a new one.
        loglevel: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        extra: Further options of `celery worker`.

    Yields:
        The worker, ready to consume.

    Raises:
        ProcessStartError: The worker ended or was not ready within 120 s; shows the log's tail.
    """
    command = [sys.executable, "-m", "celery", "-A", app_path, "worker"]
    options = ["-Q", ",".join(queues), "-c", str(concurrency), "-P", pool, "-l", loglevel]
    # Both only talk to other workers, and mingle makes each start wait a second for their answers.
    alone = ["--without-gossip", "--without-mingle"]
    with tempfile.TemporaryDirectory(prefix="worker-") as directory:
        worker = WorkerProcess(
            [*command, *options, *alone, *extra],
            hostname=hostname or f"worker-{uuid4().hex[:8]}@localhost",
            # Only the test's own probes may see the health marks of its workers.
            env={"RESILIENCE_RUNTIME_DIRECTORY": directory, **(env or {})},
            log_path=Path(directory) / "worker.log",
        )
        try:
            worker.start()
            yield worker
        except Exception as error:
            error.add_note(f"log of {worker.hostname}:\n{worker.log_tail()}")
            raise
        finally:
            worker.stop()
