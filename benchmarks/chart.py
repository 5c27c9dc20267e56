"""What draws the charts of benchmarks. Nothing else needs it, so it is not in the lock."""

import sys
from typing import Any


def new_chart() -> Any | None:  # noqa: ANN401 - matplotlib need not be installed
    """Return an empty chart, or None, said on stderr, where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - see above
    except ImportError:
        print(
            "no chart is drawn: `make bench` installs matplotlib, and so does "
            "`pip install --requirement benchmarks/requirements.txt`",
            file=sys.stderr,
        )
        return None
    return Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
