#!python
"""Tells whether the workers of this host are healthy, from the marks that they leave.

A script that needs nothing but the standard library: it costs a probe some milliseconds where
importing Celery costs most of a second. It is installed as `resilience-health`.
"""

import argparse
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

DIRECTORY_VARIABLE = "RESILIENCE_RUNTIME_DIRECTORY"
NAMESPACE_VARIABLE = "RESILIENCE_NAMESPACE"
SUFFIX = ".worker"
FORGET_SECONDS = 3600.0
"""The mark of a process that is gone counts for so long; then the next worker removes it."""
MARK_BYTES_MAX = 65_536
ASK_SECONDS_MAX = 10.0
"""A worker that asks a silent broker may leave no mark for so much longer than its limit."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError)

Mark = dict[str, Any]
Verdict = dict[str, Any]


def default_directory() -> Path:
    """Return where the workers of this user leave their marks unless told otherwise."""
    return Path(f"/tmp/resilience-{os.getuid()}")  # nosec B108 # noqa: S108 - see `why_foreign`


def why_foreign(directory: Path) -> str | None:
    """Return why *directory* may have been made by another user; None: it was not."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is a link or a file: remove it, or name another directory"
    if found.st_uid not in {os.geteuid(), 0}:
        return f"{directory} belongs to user {found.st_uid}, not {os.geteuid()}: name another"
    return None


def read_mark(path: Path) -> bytes | None:
    """Return what a worker of this user, or of root, has left at *path*; None: it is not theirs.

    Where others may write, they can leave links, pipes and marks of their own.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid in {os.geteuid(), 0}
        return opened.read(MARK_BYTES_MAX) if ours else None


def mark_path(directory: Path, node: str, *, app: str, namespace: str) -> Path:
    """Return the file of a worker.

    Args:
        directory: Of all marks.
        node: The worker's name, `name@host`.
        app: Name of its app.
        namespace: Of its app; two apps may have workers of one name.
    """
    return directory / ("+".join(quote(one, safe="@") for one in (node, app, namespace)) + SUFFIX)


def verdicts(
    directory: Path,
    name: str | None = None,
    *,
    app: str | None = None,
    namespace: str | None = None,
    live: bool = False,
) -> list[Verdict]:
    """Return a verdict on each worker: `worker`, `healthy`, `says`, and its mark.

    Args:
        directory: Where the marks are.
        name: Of a node, or what stands before its `@`: those only. One that has left no mark is
            unhealthy.
        app: Workers of the app with this name only.
        namespace: Workers of this namespace only.
        live: Whether to judge process and event loop only, and not what the broker does.
    """
    says = f"no worker has left a mark in {directory}"
    try:
        if why_not := why_foreign(directory):
            return [{"worker": name or "any", "healthy": False, "says": why_not}]
    except OSError:
        return [{"worker": name or "any", "healthy": False, "says": says}]
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    wanted = {"app": app, "namespace": namespace}
    found = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        text = read_mark(path)
        if text is None or expired(text):
            continue
        one = _judged(path, text, now, live=live)
        mark = one.get("mark", {})
        if any(value not in {None, mark.get(key, value)} for key, value in wanted.items()):
            continue
        if name in {None, one["worker"], one["worker"].partition("@")[0]}:
            found.append(one)
    return found or [{"worker": name or "any", "healthy": False, "says": says}]


def expired(text: bytes) -> bool:
    """Tell whether *text* is the mark of a process that has been gone for an hour."""
    try:
        mark = json.loads(text)
        age = time.clock_gettime(time.CLOCK_MONOTONIC) - mark["written_at"]
        # A time to come is one from before the host was started again.
        return not _is_alive(mark) and not -1 <= age < FORGET_SECONDS
    except UNREADABLE:
        return False


def started_at(pid: int) -> str | None:
    """Return when the process *pid* was started, which tells it from a later one of that number.

    Returns:
        Ticks since the host was started; None where there is no `/proc`.
    """
    try:
        # Behind the command, which may hold anything, it is the 20th field.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _judged(path: Path, text: bytes, now: float, *, live: bool) -> Verdict:
    try:
        mark = json.loads(text)
        healthy, says = judge(mark, now=now, alive=_is_alive(mark), live=live)
    except UNREADABLE as error:
        says = f"its mark cannot be read: {error!r}"
        return {"worker": path.name.removesuffix(SUFFIX), "healthy": False, "says": says}
    return {"worker": str(mark["node"]), "healthy": healthy, "says": says, "mark": mark}


def judge(mark: Mark, *, now: float, alive: bool, live: bool = False) -> tuple[bool, str]:
    """Tell whether the worker that left *mark* is healthy, and say why.

    Args:
        mark: As `Liveness` writes it; its times are those of the monotonic clock.
        now: Of the same clock.
        alive: Whether its process is there.
        live: Whether only process and event loop count.
    """
    for complaint in _complaints(mark, now, alive=alive, live=live):
        return False, complaint
    if mark["stopping"]:
        return True, "stops"
    if live:
        return True, "runs"
    consumes, held = ", ".join(mark["consumes"]), ", ".join(mark["held"])
    said = [f"consumes {consumes}"] * bool(consumes) + [f"held: {held}"] * bool(held)
    return True, "; ".join(said)


def _complaints(mark: Mark, now: float, *, alive: bool, live: bool) -> Iterator[str]:
    """Yield what is wrong, the most telling first."""
    late = partial(_seconds_late, mark, now)
    if not alive:
        yield f"is gone: there is no process {mark['pid']}"
    if _waits_for_broker(mark, now):
        if not live:  # a silent broker is no reason to restart the worker
            yield f"the broker has not answered for {round(now - mark['answered_at'])} s"
        return
    if seconds := late("written_at"):
        yield f"hangs: process {mark['pid']} has left no mark for {seconds} s"
    if mark["stopping"]:
        return
    # A loop that waits for a broker which does not answer is no reason to restart the worker. The
    # broker is asked every third of the limit: it has not answered since the loop stopped.
    if live and (late("answered_at") or _seconds_since_loop(mark) < mark["limit_seconds"] / 5):
        return
    yield from _loop_complaints(mark, late, live=live)
    if not live:
        yield from _broker_complaints(mark, late)


def _waits_for_broker(mark: Mark, now: float) -> bool:
    """Tell whether the worker leaves no mark because it asks a broker that is silent."""
    too_late = now - mark["written_at"] - mark["limit_seconds"]
    return bool(mark.get("asks")) and 0 < too_late < ASK_SECONDS_MAX


def _broker_complaints(mark: Mark, late: Callable[[str], int]) -> Iterator[str]:
    if seconds := late("answered_at"):
        yield f"the broker has not answered for {seconds} s"
    if seconds := late("progressed_at"):
        yield f"is idle, and takes none of the jobs that have waited for {seconds} s"
    if not mark["consumes"] and not mark["held"]:
        why = ", as the broker does not answer" if mark.get("broker_is_away") else ""
        yield f"consumes from none of its queues{why}"


def _loop_complaints(mark: Mark, late: Callable[[str], int], *, live: bool) -> Iterator[str]:
    if mark["looped_at"] is None:
        if not live or late("begun_at"):
            yield "starts: it does not consume yet"
    elif seconds := late("looped_at"):
        yield f"its event loop has not run for {seconds} s: it hangs, or looks for the broker"


def _seconds_since_loop(mark: Mark) -> float:
    """Return for how long the broker has been known to answer since the event loop ran last."""
    looped: float | None = mark["looped_at"]
    return float("inf") if looped is None else mark["answered_at"] - looped


def _seconds_late(mark: Mark, now: float, what: str) -> int:
    """Return for how many seconds there was none of *what*; 0: not for too long."""
    age = now - mark[what]
    # A time to come is one from before the host was started again.
    return 0 if -1 <= age <= mark["limit_seconds"] else int(abs(age))


def _is_alive(mark: Mark) -> bool:
    try:
        os.kill(mark["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user's process
    return bool(mark["started"] == started_at(mark["pid"]))


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
    parser.add_argument("--app", help="only workers of the app with this name")
    parser.add_argument(
        "--namespace",
        default=os.environ.get(NAMESPACE_VARIABLE),  # noqa: TID251 - an entry point
        help=f"only workers of this namespace; by default ${NAMESPACE_VARIABLE}, or all",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="judge process and event loop, not the broker: what a restart can mend",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_args()
    told = os.environ.get(DIRECTORY_VARIABLE)  # noqa: TID251 - an entry point
    found = verdicts(
        Path(told) if told else default_directory(),
        options.name,
        app=options.app,
        namespace=options.namespace,
        live=options.live,
    )
    return report(found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
