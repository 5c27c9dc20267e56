"""The tasks of the project."""

import urllib.request

from celery import shared_task
from celery.contrib.django.task import DjangoTask
from django.conf import settings

from resilience import FanOut, FireAndForgetTask, ResilientTask, fallback, part


class KeptTask(FireAndForgetTask, DjangoTask):
    """A kept task with `delay_on_commit`."""

    abstract = True


def fetch(service: str, path: str) -> str:
    """Return what a service answers."""
    with urllib.request.urlopen(f"http://{service}.example{path}", timeout=3) as page:
        return page.read().decode()


def from_archive(patient: int) -> str:
    """Answer from another service."""
    return fetch("archive", f"/results/{patient}")


@shared_task(
    base=ResilientTask,
    dependency="laboratory",
    fallbacks=[fallback.stale(max_age=60), fallback.call(from_archive), fallback.static("")],
)
def results(patient: int) -> str:
    """Return the results of a patient."""
    return fetch("laboratory", f"/results/{patient}")


@shared_task(
    base=ResilientTask,
    dependency="laboratory",
    autoretry_for=(OSError,),
    retry_backoff=2,
    ignore_result=True,
)
def sync() -> None:
    """Ask for what is new; beat asks again."""
    fetch("laboratory", settings.TIME_ZONE)


@shared_task(base=KeptTask, dependency="texts", idempotency_key="visit:{visit}")
def remind(visit: int) -> None:
    """Send a text; the overview that follows is published, not waited for."""
    fetch("texts", f"/send/{visit}")
    overview.delay(visit)


@shared_task(ignore_result=True)
def overview(visit: int) -> None:
    """Ask for the results, and leave them to whoever looks."""
    FanOut(results=part(results.s(visit), stale=60)).apply_async(budget=5)
