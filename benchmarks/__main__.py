"""`python -m benchmarks NAME [--quick]`: one JSON line per figure; exit code 0 if all are ok.

`all` goes on behind a benchmark that breaks, and keeps what it measured in benchmarks/results/.
"""

import importlib
import sys
import traceback
from time import perf_counter

from benchmarks.record import record

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
)
PARTS = ("crash_redis", "crash_rabbitmq", "hold_redis", "hold_rabbitmq")
"""Of some of those, by themselves; `all` has them already."""
LONG = ("demo_busy",)
"""Too long for `all`."""


def main(arguments: list[str]) -> int:
    """Run the benchmarks that *arguments* name and return the exit code."""
    quick = "--quick" in arguments
    names = [name for name in arguments if name != "--quick"]
    every = names == ["all"]
    if every:
        names = list(NAMES)
    if not names or any(name not in NAMES + PARTS + LONG for name in names):
        print(
            f"usage: python -m benchmarks {'|'.join((*NAMES, *PARTS, *LONG, 'all'))} [--quick]",
            file=sys.stderr,
        )
        return 2
    ok = True
    for name in names:
        began = perf_counter()
        figures = []
        try:
            for figure in importlib.import_module(f"benchmarks.{name}").run(quick=quick):
                print(figure.to_json(), flush=True)
                figures.append(figure)
        except Exception:
            if not every:
                raise
            traceback.print_exc()
            ok = False
            continue
        ok = ok and all(figure.ok for figure in figures)
        if every and not quick:
            record(name, figures, perf_counter() - began)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
