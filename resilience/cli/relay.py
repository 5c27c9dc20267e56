"""`celery -A app resilience relay`: a relay in a process of its own."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from resilience.cli.ledger import ledger_of
from resilience.tasks.ledger_check import LedgerCheck
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.relay import Relay

logger = get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.pass_context
def relay(context: click.Context) -> None:
    """Publish what waits in the ledger, without a worker.

    Every worker runs a relay; this one does where no worker is, or beside them. SIGTERM or Ctrl-C
    ends it after the batch under way.
    """
    app = context.obj.app
    ledger_of(context)
    check = LedgerCheck.of(Resilience.of(app))
    check.join()
    publishing = Relay(Resilience.of(app))
    app.log.setup(loglevel="INFO", redirect_stdouts=False)
    with _stopping() as stopped:
        logger.info("the relay runs")
        while not select.select([stopped], [], [], publishing.look())[0]:
            check.rejoin()
    logger.info("the relay has stopped")


@contextmanager
def _stopping() -> Iterator[int]:
    """Yield a file descriptor that can be read once the process was asked to end."""
    # A pipe, as a handler that interrupts a thread in Event.wait must not take the event's lock.
    stopped, stop = os.pipe()

    def ask(_number: int, _frame: FrameType | None) -> None:
        os.write(stop, b".")

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(stop)
        os.close(stopped)
