"""What jobs did, as they wrote it down themselves."""

import json
import os
from pathlib import Path
from typing import Any

from resilience.clock import SystemClock


class Diary:
    """A file to which all processes append a line per step; it outlives each of them."""

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        """Write to *path*; *durable*: a line is on disk once it is said."""
        self._path = path
        self._durable = durable

    def note(self, what: str, job: int | str, **more: object) -> None:
        """Write down what happened to *job*, in which process, and when (CLOCK_MONOTONIC)."""
        at = SystemClock.monotonic()
        line = json.dumps({"what": what, "job": job, "pid": os.getpid(), "at": at, **more})
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{line}\n".encode())
            if self._durable:
                os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines, in the order in which they were written."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]
