"""Real processes for tests, and an adapter that lets pytest-celery use them as containers.

Needs psutil.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import psutil

from resilience.testing.waiting import wait_until

START_SECONDS = 120.0
STOP_SECONDS = 10.0
KILL_SECONDS = 10.0
TAIL_LINES = 40
SHORT_ID_LENGTH = 12
_started: WeakSet["ServerProcess"] = WeakSet()


class ProcessStartError(RuntimeError):
    """The process ended, or its log did not say in time that it is ready; shows the log's tail."""


class ServerProcess:
    """A process in a group of its own, so that a SIGKILL takes its children along.

    It can be started again after it was stopped or killed; the log goes on in the same file.

    Attributes:
        command: Program and arguments.
        env: Variables on top of the environment that the tests were started with.
        directory: Where it runs; None: where the tests run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: str,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the process; `start` starts it.

        Args:
            command: Program and arguments.
            ready: Text that the log contains once the process is up.
            log_path: File for standard output and standard error.
            env: Variables on top of the inherited environment.
            directory: Where it runs; None: where the tests run.
        """
        self.command = list(command)
        self.env = dict(env or {})
        self.directory = directory
        self._ready = ready
        self._log_path = log_path
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the leader, even if it has died since.

        Raises:
            RuntimeError: It was not started, or `stop` or `kill` was called since.
        """
        if self._process is None:
            msg = f"not started: {shlex.join(self.command)}"
            raise RuntimeError(msg)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether the leader lives; a process stopped by SIGSTOP lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that was written to standard output and error, in all starts."""
        return self._read_log(0)

    def log_tail(self) -> str:
        """Return the last 40 lines of the log."""
        return "\n".join(self.log.splitlines()[-TAIL_LINES:])

    def start(self) -> None:
        """Start the process and wait until its log says that it is ready, for at most 120 s.

        Raises:
            RuntimeError: It runs already.
            ProcessStartError: It ended, or never got ready; nothing of it is left running.
        """
        if self.running:
            msg = f"runs already: {shlex.join(self.command)}"
            raise RuntimeError(msg)
        self.kill()  # children that outlived a leader which died by itself
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()
            process = subprocess.Popen(  # noqa: S603 - tests start what they name
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=inherited_env(self.env),
                start_new_session=True,
            )
        self._process = process
        _started.add(self)
        try:
            self._await_ready(process)
        except BaseException:
            self.kill()
            raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask the leader to end (SIGTERM), wait, then kill what is left of the group.

        Args:
            seconds: How long the leader may take before it is killed.
        """
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the whole group, and wait until it is gone; does nothing if it is."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(KILL_SECONDS)
        wait_until(lambda: not self.children(), KILL_SECONDS, "the killed group is gone")
        self._process = None

    def send_signal(self, number: int) -> None:
        """Send a signal to the leader; SIGKILL goes to the whole group.

        Waits until a group sent SIGKILL is gone, and until a leader sent SIGSTOP has stopped.
        """
        if number == signal.SIGKILL:
            self.kill()
        elif number == signal.SIGSTOP:
            suspend(self.pid)
        else:
            os.kill(self.pid, number)

    def children(self) -> list[int]:
        """Return the ids of the group's live processes without the leader, orphans included."""
        if self._process is None:
            return []
        return [pid for pid in psutil.pids() if pid != self.pid and _in_group(self.pid, pid)]

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            wait_until(self._ready_or_dead, START_SECONDS, f"the log says {self._ready!r}")
        except AssertionError as error:
            raise ProcessStartError(self._complaint(str(error))) from error
        if not self.running:
            raise ProcessStartError(self._complaint(f"it ended with code {process.returncode}"))

    def _ready_or_dead(self) -> bool:
        return self._ready in self._read_log(self._log_start) or not self.running

    def _read_log(self, start: int) -> str:
        if not self._log_path.exists():
            return ""
        return self._log_path.read_bytes()[start:].decode(errors="replace")

    def _complaint(self, reason: str) -> str:
        return f"{shlex.join(self.command)}: {reason}; end of its log:\n{self.log_tail()}"


def running_processes() -> list[ServerProcess]:
    """Return all processes that this one has started and that still run."""
    return [one for one in list(_started) if one.running]


def is_alive(pid: int) -> bool:
    """Tell whether *pid* is a process that has not ended.

    A zombie has ended. Where no init process reaps orphans, as in many containers, an orphan that
    has ended stays a zombie for ever.
    """
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _in_group(group: int, pid: int) -> bool:
    try:
        return os.getpgid(pid) == group and is_alive(pid)
    except ProcessLookupError:
        return False


def suspend(pid: int) -> None:
    """Send SIGSTOP to a process, and wait until all of its threads have stopped.

    Until then it may still answer: the signal takes effect thread by thread.
    """
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    if threads.exists():  # on Linux
        wait_until(lambda: _have_stopped(threads), START_SECONDS, f"process {pid} has stopped")


def _have_stopped(threads: Path) -> bool:
    try:
        stats = [(one / "stat").read_text() for one in threads.iterdir()]
    except OSError:  # a thread has just ended
        return False
    return all(stat.rpartition(")")[2].split()[0] in "Tt" for stat in stats)


def inherited_env(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that the tests were started with, plus *extra*."""
    # Real workers have PATH, HOME and the virtual environment, too.
    return {**os.environ, **extra}  # noqa: TID251 - see above


def import_path(*first: Path) -> str:
    """Return a PYTHONPATH that lets a child import from *first*, then what this process can."""
    return os.pathsep.join([*map(str, first), *filter(None, sys.path)])


class ProcessContainer:
    """A `ServerProcess` with the methods of a Docker container that pytest-celery calls.

    The wrapper classes of pytest-celery (`RedisContainer`, `CeleryWorkerContainer`) accept it in
    place of the docker package's object. There is no network and no port mapping: everything is
    on 127.0.0.1.

    Attributes:
        process: The process behind it.
        id: 64 hexadecimal digits, as Docker's.
        attrs: The entries that the wrappers look up.
    """

    def __init__(self, process: ServerProcess, *, container_id: str | None = None) -> None:
        """Wrap *process*, which may be started before or after.

        Args:
            process: The process to wrap.
            container_id: 64 hexadecimal digits; None: random ones.
        """
        self.process = process
        self.id = container_id or new_container_id()
        self.name = f"process-{self.id[:SHORT_ID_LENGTH]}"
        self.attrs: dict[str, Any] = {
            "Config": {
                "Hostname": self.id[:SHORT_ID_LENGTH],
                "Env": [f"{name}={value}" for name, value in process.env.items()],
            },
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    @property
    def status(self) -> str:
        """Docker's word for the state: running or exited."""
        return "running" if self.process.running else "exited"

    def reload(self) -> None:
        """Do nothing: all attributes are always fresh."""

    def logs(self) -> bytes:
        """Return the log of all starts."""
        return self.process.log.encode()

    def kill(self, signal: str | int | None = None) -> None:
        """Send *signal* ("SIGTERM", 15; None: SIGKILL); SIGKILL takes the children along."""
        self.process.send_signal(signal_number(signal))

    def restart(self, timeout: float = STOP_SECONDS) -> None:
        """Stop the process if it runs, for at most *timeout* seconds, and start it again."""
        self.process.stop(timeout)
        self.process.start()

    def exec_run(self, command: str) -> tuple[int, bytes]:
        """Run *command* to its end, in the directory and environment of the process.

        Unlike in a container, it sees all processes of the machine.

        Returns:
            The exit code, and standard output followed by standard error.
        """
        done = subprocess.run(  # noqa: S603 - tests start what they name
            runnable(shlex.split(command)),
            cwd=self.process.directory,
            env=inherited_env(self.process.env),
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def signal_number(value: str | int | None) -> int:
    """Return the number of a signal given as Docker takes it: name, number, or None for SIGKILL."""
    if value is None:
        return signal.SIGKILL
    return signal.Signals[value] if isinstance(value, str) else value


def new_container_id() -> str:
    """Return 64 random hexadecimal digits."""
    return uuid4().hex + uuid4().hex


def runnable(command: Sequence[str]) -> list[str]:
    """Return *command* with `python` and `celery` replaced by those of the running interpreter."""
    program, *arguments = command
    if program == "python":
        return [sys.executable, *arguments]
    if program == "celery":
        return [sys.executable, "-m", "celery", *arguments]
    return [program, *arguments]
