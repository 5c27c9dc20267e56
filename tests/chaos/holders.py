"""Many holders of slots that are killed at random, and the verdict on their logs."""

import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from uuid import uuid4

from resilience.clock import SystemClock
from resilience.store import Store
from resilience.store.slots import SlotStore
from resilience.testing.process import import_path, inherited_env
from resilience.testing.waiting import wait_until

CLOCK = SystemClock()
HOLDER = "tests.chaos.holder"
HELD_SECONDS = 30.0


@dataclass
class Verdict:
    """What the logs say.

    Attributes:
        peak: Most holders at once.
        acquired: Slots granted in total.
        killed: Processes killed.
        killed_holding: Those of them that held a slot.
    """

    peak: int = 0
    acquired: int = 0
    killed: int = 0
    killed_holding: int = 0


@dataclass
class Holder:
    """One process after another, until its log shows all acquisitions."""

    url: str
    slots: int
    wanted: int
    hold_seconds: float
    path: Path
    deaths: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def lines(self) -> list[str]:
        """Return what is logged; a line that a kill cut short is none."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line for line in text.splitlines() if len(line.split()) == 2]

    def left(self) -> int:
        """Return how many acquisitions are missing."""
        return self.wanted - sum(line.startswith("enter") for line in self.lines())

    def run(self) -> bool:
        """Go on unless all is done; return whether there is more to do."""
        if self.process is not None and self.process.poll() is None:
            return True
        if self.process is not None:
            assert self.process.returncode in {0, -9}, f"{self.path} ended by itself"
        missing = self.left()
        if missing <= 0:
            return False
        self.process = subprocess.Popen(  # noqa: S603 - our own
            [
                sys.executable,
                "-m",
                HOLDER,
                self.url,
                *map(str, (self.slots, missing, self.hold_seconds, self.path)),
            ],
            env=inherited_env({"PYTHONPATH": import_path()}),
        )
        return True

    def kill(self) -> bool:
        """Kill it and note when it was dead; return whether it lived and had begun."""
        if self.process is None or self.process.poll() is not None or not self.lines():
            return False
        self.process.kill()
        self.process.wait()
        self.deaths.append(CLOCK.monotonic())
        return True

    def intervals(self) -> tuple[list[tuple[float, float]], int]:
        """Return when a slot was held, and how many of these times ended by death."""
        found: list[tuple[float, float]] = []
        died, entered = 0, None
        for line in self.lines():
            what, at = line.split()
            if what == "enter":
                if entered is not None:
                    found.append((entered, self._death(entered)))
                    died += 1
                entered = float(at)
            elif what == "leave" and entered is not None:
                found.append((entered, float(at)))
                entered = None
        if entered is not None:
            found.append((entered, self._death(entered)))
            died += 1
        return found, died

    def _death(self, after: float) -> float:
        return min(death for death in self.deaths if death >= after)


def hold_and_kill(
    url: str,
    directory: Path,
    *,
    processes: int,
    acquisitions: int,
    slots: int,
    hold_seconds: float,
    kills: int,
    kill_seconds: float,
    seconds: float,
) -> Verdict:
    """Run *processes* until each has taken *acquisitions* slots, with up to *kills* SIGKILLs.

    Args:
        url: A store of the test's own.
        directory: For the logs.
        processes: How many at once.
        acquisitions: Of each, over all its restarts.
        slots: The cap.
        hold_seconds: Longest time a slot is held.
        kills: SIGKILLs at most.
        kill_seconds: Longest pause between two.
        seconds: How long it may take.
    """
    dice = random.Random(7)  # noqa: S311 - to be repeated
    holders = [
        Holder(url, slots, acquisitions, hold_seconds, directory / f"{n}.log")
        for n in range(processes)
    ]
    verdict, pause = Verdict(), Event()
    until = CLOCK.monotonic() + seconds
    try:
        _begin(holders, directory)
        while sum(holder.run() for holder in holders):
            assert CLOCK.monotonic() < until, f"not done within {seconds:g} s"
            pause.wait(dice.uniform(0, kill_seconds))
            if verdict.killed < kills:
                verdict.killed += dice.choice(holders).kill()
    finally:
        for holder in holders:
            if holder.process is not None:
                holder.process.kill()
                holder.process.wait()
    edges = []
    for holder in holders:
        intervals, died = holder.intervals()
        verdict.acquired += len(intervals)
        verdict.killed_holding += died
        edges += [(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals]
    running = 0
    for _, change in sorted(edges):
        running += change
        verdict.peak = max(verdict.peak, running)
    return verdict


def _begin(holders: list[Holder], directory: Path) -> None:
    """Start all, and let them go on once all are up."""
    for holder in holders:
        holder.run()
    wait_until(lambda: all(holder.lines() for holder in holders), 120, "all are up")
    (directory / "go").touch()


def seconds_until_all_are_back(url: str, directory: Path, *, slots: int) -> float:
    """Kill *slots* processes while they hold all slots; return when all could be had again."""
    holders = [
        Holder(url, slots, 1, 2 * HELD_SECONDS, directory / f"last-{n}.log") for n in range(slots)
    ]
    store = SlotStore(Store(url, namespace="chaos", timeout_seconds=30.0))
    client = store._store.client  # noqa: SLF001 - to look, not to touch
    held = store._store.key("slots", "payments", "held")  # noqa: SLF001 - as above
    try:
        _begin(holders, directory)
        wait_until(lambda: client.zcard(held) == slots, HELD_SECONDS, "all slots are held")
    finally:
        for holder in holders:
            holder.kill()
    died = CLOCK.monotonic()
    owners = [uuid4().hex for _ in range(slots)]
    wait_until(
        lambda: sum(store.take("payments", one, slots) is None for one in owners) == slots,
        20,
        "all slots are back",
    )
    back = CLOCK.monotonic() - died
    for one in owners:
        store.leave("payments", one, slots)
    return back
