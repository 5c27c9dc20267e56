#!python
"""Tells whether the workers of this host are healthy, from the marks that they leave.

A script that needs nothing but the standard library: it costs a probe some milliseconds where
importing Celery costs most of a second. It is installed as `resilience-health`.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

DIRECTORY_VARIABLE = "RESILIENCE_RUNTIME_DIRECTORY"
SUFFIX = ".worker"

Mark = dict[str, Any]
Verdict = dict[str, Any]


def default_directory() -> Path:
    """Return where the workers of this user leave their marks unless told otherwise."""
    return Path(f"/tmp/resilience-{os.getuid()}")  # noqa: S108 - the writer checks its owner


def mark_path(directory: Path, node: str) -> Path:
    """Return the file of the worker with this node name, `name@host`."""
    return directory / (quote(node, safe="@") + SUFFIX)


def verdicts(directory: Path, name: str | None = None) -> list[Verdict]:
    """Return what is to be said of each worker: `worker`, `healthy`, `says`, and its mark.

    Args:
        directory: Where the marks are.
        name: Of a node, or what stands before its `@`: those only. One that has left no mark is
            unhealthy.
    """
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    found = [_judged(path, now) for path in sorted(directory.glob(f"*{SUFFIX}"))]
    if name is not None:
        found = [one for one in found if name in {one["worker"], one["worker"].partition("@")[0]}]
    if not found:
        says = f"no worker has left a mark in {directory}"
        return [{"worker": name or "any", "healthy": False, "says": says}]
    return found


def _judged(path: Path, now: float) -> Verdict:
    try:
        mark = json.loads(path.read_bytes())
        healthy, says = judge(mark, now=now, alive=_is_alive(mark["pid"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        says = f"its mark cannot be read: {error!r}"
        return {"worker": path.name.removesuffix(SUFFIX), "healthy": False, "says": says}
    return {"worker": mark["node"], "healthy": healthy, "says": says, "mark": mark}


def judge(mark: Mark, *, now: float, alive: bool) -> tuple[bool, str]:
    """Tell whether the worker that left *mark* is healthy, and say why.

    Args:
        mark: As `Liveness` writes it; its times are those of the monotonic clock.
        now: Of the same clock.
        alive: Whether its process is there.
    """
    for complaint in _complaints(mark, now, alive=alive):
        return False, complaint
    if mark["stopping"]:
        return True, "stops"
    consumes, held = ", ".join(mark["consumes"]), ", ".join(mark["held"])
    said = [f"consumes {consumes}"] * bool(consumes) + [f"held: {held}"] * bool(held)
    return True, "; ".join(said)


def _complaints(mark: Mark, now: float, *, alive: bool) -> Iterator[str]:
    """Yield what is wrong, the most telling first."""

    def late(what: str) -> int:
        """Return for how many seconds there was none of *what*; 0: not for too long."""
        age = now - mark[what]
        # A time to come is one from before the host was started again.
        return 0 if -1 <= age <= mark["limit_seconds"] else int(abs(age))

    if not alive:
        yield f"is gone: there is no process {mark['pid']}"
    if seconds := late("written_at"):
        yield f"hangs: it has left no mark for {seconds} s"
    if mark["stopping"]:
        return
    if mark["looped_at"] is None:
        yield "starts: it does not consume yet"
    if not mark["blocked_by_job"] and (seconds := late("looped_at")):
        yield f"its event loop has not run for {seconds} s: it hangs, or looks for the broker"
    if seconds := late("answered_at"):
        yield f"the broker has not answered for {seconds} s"
    if seconds := late("progressed_at"):
        yield f"is idle, and takes none of the jobs that have waited for {seconds} s"
    if not mark["consumes"] and not mark["held"]:
        yield "consumes from none of its queues"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def report(found: list[Verdict], *, as_json: bool) -> int:
    """Print *found*; return the exit code: 0 if all are healthy, else 1."""
    if as_json:
        lines = [json.dumps(found, indent=2)]
    else:
        words = {True: "healthy", False: "UNHEALTHY"}
        lines = [f"{one['worker']}: {words[one['healthy']]}: {one['says']}" for one in found]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(one["healthy"] for one in found) else 1


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description="Tell whether the workers of this host are well.")
    parser.add_argument("name", nargs="?", help="only this: a dependency, 'default' or name@host")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_args()
    told = os.environ.get(DIRECTORY_VARIABLE)  # noqa: TID251 - an entry point
    directory = Path(told) if told else default_directory()
    return report(verdicts(directory, options.name), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
