"""A Celery worker of pytest-celery as a process of this machine.

Needs pytest-celery and psutil.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pytest_celery import CeleryWorkerContainer  # type: ignore[import-untyped]

from resilience.testing.process import (
    SHORT_ID_LENGTH,
    ProcessContainer,
    ServerProcess,
    import_path,
    new_container_id,
    runnable,
)

READY = " ready."


class ProcessWorker(CeleryWorkerContainer):  # type: ignore[misc]  # pytest-celery has no types
    """A worker in a process group of its own; subclass it as you would `CeleryWorkerContainer`.

    Settings for Docker images (Celery's version, exposed ports) have no effect: the worker runs in
    the environment of the tests.
    """

    @classmethod
    def launch(
        cls,
        command: Sequence[str],
        *,
        content: Mapping[str, bytes],
        env: Mapping[str, str],
        directory: Path,
    ) -> Self:
        """Write the worker's modules, start it, and wait until it is ready.

        Args:
            command: As from `command()`; `%h` becomes the container's host name.
            content: As from `initial_content()`: file names and their source.
            env: As from `initial_env()`; PYTHONPATH in it is replaced.
            directory: An empty directory for the modules and the log.

        Raises:
            ProcessStartError: The worker ended or did not get ready.
        """
        modules = directory / "app"
        write_files(modules, content)
        container_id = new_container_id()
        hostname = container_id[:SHORT_ID_LENGTH]
        process = ServerProcess(
            runnable([argument.replace("%h", hostname) for argument in command]),
            ready=READY,
            log_path=directory / "worker.log",
            env={**env, "PYTHONPATH": import_path(modules)},
            directory=modules,
        )
        process.start()
        return cls(ProcessContainer(process, container_id=container_id))

    @property
    def process(self) -> ServerProcess:
        """The process behind the container."""
        process: ServerProcess = self._container.process
        return process


def write_files(directory: Path, content: Mapping[str, bytes]) -> None:
    """Write *content*, file names relative to *directory* and their bytes."""
    for name, source in content.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
