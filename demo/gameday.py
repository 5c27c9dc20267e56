"""Play the shop's game day: `python -m demo.gameday`, on services and a database of its own.

Options are those of `celery -A workers.app resilience gameday`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from demo.proof import run_beside_services

PLAN: Final = Path(__file__).with_name("gameday.toml")


def main(arguments: Sequence[str]) -> int:
    """Run the services, and the game day with *arguments*; return its exit code."""
    return run_beside_services(["gameday", str(PLAN), *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
