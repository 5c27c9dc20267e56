"""`python -m benchmarks NAME [--quick] [--record]`: one JSON line per figure.

Exit code 0: all figures are ok; 1: one is not; 2: no such benchmark; 3: one raised an error. With
`--record` the figures also go to benchmarks/results/.

`all` records all benchmarks, each in a process of its own, so that none finds what another has left
in its memory or environment. It continues after one that raises an error, and ends with a list of
the figures out of bounds and the benchmarks that failed.
"""

import importlib
import json
import subprocess
import sys
import traceback
from time import perf_counter
from typing import Final

from benchmarks.record import busy_processors, record

NAMES = (
    "fanout",
    "budget",
    "breaker",
    "breaker_quality",
    "convergence",
    "store_down",
    "parked",
    "publish_broker_down",
    "admission",
    "hold",
    "crash",
    "isolation",
    "flags",
    "flag_trial",
    "shedding",
    "consistency",
    "throughput",
    "weight",
    "scale",
    "scrape",
    "peers",
    "slots",
    "adaptive",
    "page",
    "telemetry",
    "fault_proxy",
)
PARTS = ("crash_redis", "crash_rabbitmq", "hold_redis", "hold_rabbitmq")
"""Halves of `crash` and `hold` that can run by themselves."""
LONG = ("demo_busy",)
"""Takes too long for `all`."""
OUT_OF_BOUNDS: Final = 1
UNKNOWN: Final = 2
ERROR: Final = 3


def main(arguments: list[str]) -> int:
    """Run the benchmarks that *arguments* name and return the exit code."""
    quick, recorded = "--quick" in arguments, "--record" in arguments
    names = [name for name in arguments if name not in {"--quick", "--record"}]
    if names == ["all"]:
        return run_all(quick=quick)
    known = (*NAMES, *PARTS, *LONG)
    if not names or not {*names} <= {*known}:
        usage = f"python -m benchmarks {'|'.join((*known, 'all'))} [--quick] [--record]"
        print(f"usage: {usage}", file=sys.stderr)
        return UNKNOWN
    return max(run_one(name, quick=quick, recorded=recorded) for name in names)


def run_one(name: str, *, quick: bool, recorded: bool) -> int:
    """Print the figures of one benchmark and return the exit code; *recorded*: write them, too."""
    before = busy_processors() if recorded else 0.0
    began, figures = perf_counter(), []
    try:
        for figure in importlib.import_module(f"benchmarks.{name}").run(quick=quick):
            print(figure.to_json(), flush=True)
            figures.append(figure)
    except Exception:  # noqa: BLE001 - shown; the next benchmark has its turn
        traceback.print_exc()
        return ERROR
    if recorded and figures:
        took = perf_counter() - began
        record(name, figures, took, others=[before, busy_processors()], quick=quick)
    return 0 if all(figure.ok for figure in figures) else OUT_OF_BOUNDS


def run_all(*, quick: bool) -> int:
    """Run and record all benchmarks and return the exit code."""
    failed: list[str] = []
    for name in NAMES:
        command = [sys.executable, "-m", "benchmarks", name, "--record", *["--quick"] * quick]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:  # noqa: S603 - ours
            for line in running.stdout or ():
                print(line, end="", flush=True)
                failed += [line.strip()] if not json.loads(line)["ok"] else []
        if running.returncode not in {0, OUT_OF_BOUNDS}:
            failed.append(f"{name} ended with exit code {running.returncode}")
    print("not ok:", *(failed or ["nothing"]), sep="\n", file=sys.stderr)
    return OUT_OF_BOUNDS if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
