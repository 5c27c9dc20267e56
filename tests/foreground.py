"""A command that runs as in the foreground of a terminal, and every process that it starts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psutil

from resilience.cli.program import Program
from resilience.cli.supervise import supervise
from resilience.testing.process import import_path, inherited_env, is_alive
from resilience.testing.waiting import wait_until

SECONDS = 120


class Foreground:
    """A running command, the leader of a session to which all that it starts belongs."""

    def __init__(self, process: subprocess.Popen[bytes], output_path: Path) -> None:
        self.process = process
        self._output_path = output_path

    @property
    def output(self) -> str:
        """All that was written to standard output and error so far."""
        return self._output_path.read_text()

    @property
    def lines(self) -> list[str]:
        """The lines of the output, without the spaces that align them."""
        return [" ".join(line.split()) for line in self.output.splitlines()]

    def wait_for(self, text: str) -> None:
        """Wait until one line of the output contains *text*."""
        wait_until(
            lambda: any(text in line for line in self.lines) or self.process.poll() is not None,
            SECONDS,
            f"the output says {text!r}:\n{self.output}",
        )
        assert any(text in line for line in self.lines), self.output

    def family(self) -> set[int]:
        """Return the ids of all live processes of the session, without its leader."""
        return {pid for pid in psutil.pids() if pid != self.process.pid and self._has(pid)}

    def signal(self, number: int) -> None:
        """Send a signal to the group in the foreground, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for the end of the command for *seconds* at most, and return its exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill the whole session."""
        for pid in {self.process.pid, *self.family()}:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
        self.process.wait(SECONDS)
        wait_until(lambda: not self.family(), SECONDS, "the killed session is gone")

    def _has(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self.process.pid and is_alive(pid)
        except ProcessLookupError:
            return False


@contextmanager
def foreground(
    command: Sequence[str], directory: Path, env: Mapping[str, str] | None = None
) -> Iterator[Foreground]:
    """Run *command* for the length of the block, its output in *directory*; kill its session."""
    output_path = directory / "output"
    with output_path.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - tests start what they name
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=inherited_env({"PYTHONPATH": import_path(), **(env or {})}),
            start_new_session=True,
        )
    running = Foreground(process, output_path)
    try:
        yield running
    finally:
        running.kill()


def supervising(programs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a command that supervises *programs*, each the arguments of a `Program`."""
    return [sys.executable, "-m", __name__, json.dumps(programs)]


if __name__ == "__main__":
    sys.exit(supervise([Program(**program) for program in json.loads(sys.argv[1])]))
