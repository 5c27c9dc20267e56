"""The shop's Celery app: `celery -A workers.app resilience worker payments`."""

from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutdown

from jobs.clients import close_clients
from jobs.dependencies import DEPENDENCIES
from jobs.features import FEATURES
from jobs.settings import ShopSettings
from jobs.storage import close_connections, declare_databases
from resilience import Resilience, SheddingPolicy
from resilience.events import log_event
from resilience.monitor.celery_events import CeleryEvents

TASKS = (
    "jobs.dashboard",
    "jobs.notifications",
    "jobs.orders",
    "jobs.payments",
    "jobs.ping",
    "jobs.recommendations",
    "jobs.search",
    "jobs.users",
)

settings = ShopSettings.from_environment()

app = Celery("shop", broker=settings.broker_url, backend=settings.broker_url, include=TASKS)
# Not by the load of the host: the whole shop, and whatever else runs there, is on one. Jobs of a
# search that nobody waits for any more leave its queue, so it never gets long.
shedding = SheddingPolicy(
    dwell_seconds=settings.dwell_seconds, depth_share=0.2, load=None, p95_share=None
)
resilience = Resilience(
    app,
    dependencies=DEPENDENCIES,
    features=FEATURES,
    shedding=shedding,
    listeners=(log_event, CeleryEvents(app)),  # the latter for Flower's Degradation page
)
declare_databases(resilience, settings)

for ended in (worker_process_shutdown, worker_shutdown):
    ended.connect(close_clients, weak=False)
    ended.connect(close_connections, weak=False)
