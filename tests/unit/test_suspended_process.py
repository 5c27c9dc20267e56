"""Processes that tests suspend."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.testing.process import suspend

ROUNDS = 30
"""After a plain SIGSTOP a thread still runs in every third or so."""
MANY_THREADS = """
import threading
def live():
    while True:
        threading.Event().wait(0.001)
for _ in range(40):
    threading.Thread(target=live, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""
THREADS = Path("/proc/self/task")


@pytest.mark.skipif(not THREADS.exists(), reason="looks at threads in /proc")
def test_no_thread_of_a_suspended_process_runs() -> None:
    """A server that was suspended answers nobody, not even with its last thread."""
    command = [sys.executable, "-c", MANY_THREADS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            seen = set()
            for _ in range(ROUNDS):
                suspend(process.pid)
                seen |= states(process.pid)
                os.kill(process.pid, signal.SIGCONT)
        finally:
            process.kill()
    assert seen == {"T"}


def states(pid: int) -> set[str]:
    """Return the states of a process's threads, as in proc_pid_stat(5)."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}
