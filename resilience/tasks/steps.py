"""The bootsteps that the library adds to an app's workers."""

from typing import Any

from celery import Celery

WORKER = (
    "forking:FreezeBeforeFork",
    "sweeper:FanInSweeper",
    "relay:LedgerRelay",
    "undertaker:Undertaker",
    "stopping:GracefulStop",
    "liveness:Liveness",
    "lookout:Lookout",
    "shedding:Shedding",
)
CONSUMER = ("gate:Gate", "heartbeat:QuickHeartbeat")


def add_steps(app: Celery[Any]) -> None:
    """Add them by name, so that only a worker imports them."""
    for kind, steps in {"worker": WORKER, "consumer": CONSUMER}.items():
        for step in steps:
            app.steps[kind].add(f"resilience.worker.{step}")
