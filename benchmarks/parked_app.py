"""The app of the benchmark of parked jobs: one that fails at once, and a plain task of Celery."""

import dataclasses
from uuid import uuid4

from celery import Celery

from resilience import Dependency, Resilience
from resilience.ledger import Job
from resilience.settings import Settings
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.kept import job_of

QUEUE = "parked"
PLAIN_QUEUE = "plain"
WAIT_SECONDS = 36_000.0


class BusyError(ConnectionError):
    """The dependency says to come back in ten hours."""

    retry_after = WAIT_SECONDS


def make_app(url: str, ledger_url: str) -> Celery:
    """Return an app with the tasks `fail` and `plain`, at these servers."""
    app = Celery("benchmarks", broker=url, set_as_current=False)
    Resilience(
        app,
        dependencies=[Dependency(QUEUE, breaker=None, retry_share=None)],
        settings=Settings(ledger_url=ledger_url, store_url=url),
        listeners=[],
    )
    app.task(name="fail", base=FireAndForgetTask, dependency=QUEUE, shared=False)(_fail)
    app.task(name="plain", queue=PLAIN_QUEUE, ignore_result=True, shared=False)(_return)
    return app


def copies(app: Celery, jobs: int) -> list[Job]:
    """Return *jobs* jobs as the ledger keeps them."""
    one = job_of(
        app.tasks["fail"],
        (1,),
        {},
        {"task_id": "", "ignore_result": True},
        queue=f"{QUEUE}.retry",
        ledger={"born": 0.0},
        age_seconds=0.0,
    )
    return [dataclasses.replace(one, id=uuid4().hex) for _ in range(jobs)]


def _fail(number: int) -> None:
    raise BusyError(number)


def _return(number: int) -> int:
    return number
