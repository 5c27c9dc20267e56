"""What code costs a fresh interpreter, with the packages of this environment and without ours."""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import resilience

OURS = "celery_resilience"
LEFT_OUT = (OURS, "__editable__")
REPORT = """
import json, sys, time
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stderr.write("\\n" + json.dumps([time.process_time(), int(high.split()[1]) / 1024]))
"""


def packages(directory: Path, *, ours: bool) -> Path:
    """Fill *directory* with links to all installed packages; *ours*: with this one, too."""
    directory.mkdir()
    installed = Path(sysconfig.get_paths()["purelib"])
    for entry in installed.iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(LEFT_OUT):
            (directory / entry.name).symlink_to(entry)
    if ours:
        (metadata,) = installed.glob(f"{OURS}-*.dist-info")
        (directory / metadata.name).symlink_to(metadata)
        (directory / "resilience").symlink_to(Path(resilience.__file__).parent)
    return directory


class Cost:
    """Processor time and memory of one piece of code, over several runs.

    Attributes:
        cpu_ms: Median of milliseconds, the interpreter's start included.
        high_mb: Median of the most memory that was in use.
    """

    def __init__(self, runs: Sequence[tuple[float, float]]) -> None:
        """Summarise *runs*."""
        self.cpu_ms = median(cpu for cpu, _ in runs) * 1000
        self.high_mb = median(high for _, high in runs)


def costs(codes: Mapping[str, tuple[Path, str]], *, rounds: int) -> dict[str, Cost]:
    """Run each code, given with where its packages are, in turns; the first turn is not counted.

    Processor time is measured, so that other programs disturb it little.
    """
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for _ in range(rounds + 1):
        for name, (path, code) in codes.items():
            runs[name].append(_run(path, code))
    return {name: Cost(all_[1:]) for name, all_ in runs.items()}


def _run(path: Path, code: str) -> tuple[float, float]:
    # Without `site` nothing is found but what *path* holds.
    command = [sys.executable, "-S", "-c", code + REPORT]
    done = subprocess.run(  # noqa: S603 - of this package
        command, env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=True
    )
    cpu, high = json.loads(done.stderr.splitlines()[-1])
    return cpu, high
