"""Run every process of the shop in this one's session: `python -m demo.stack LAYOUT`.

Started by `demo.runner`, whose end it notices: nothing outlives a demo, however that dies.
"""

import os
import signal
import sys
import threading

from demo.layout import Layout
from resilience.cli.supervise import supervise

STDIN = 0


def main() -> int:
    """Supervise the programs of the layout that is the first argument, as JSON.

    Returns:
        The exit code: 0 after a stop that was asked for.
    """
    layout = Layout.from_json(sys.argv[1])
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    return supervise(layout.programs())


def _stop_with_parent() -> None:
    # Nothing is ever written to this pipe: it ends when the parent does. Not through sys.stdin,
    # whose lock a thread that is blocked in it would keep while the interpreter ends.
    os.read(STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
