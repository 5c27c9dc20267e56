"""An app whose jobs publish others, as a tree says, and report when they ran."""

import json
from threading import Event
from typing import Any

import redis
from celery import Celery, Task, chain, current_app, group
from celery.app.task import Context

from resilience.budget import current_budget
from resilience.clock import SystemClock
from resilience.dependency import Dependency
from resilience.tasks import Resilience, ResilientTask
from resilience.tasks.envelope import deadline_of

REPORTS = "told"
QUEUE = "celery"
Tree = dict[str, Any]
"""A job and its children.

`run`: how many seconds it runs; `own`: its own budget in seconds, or None; `queue`: the queue that
it goes through; `retries`: how often it runs again; `plain`: whether its task is of Celery's own
class; `children`: the jobs that it publishes; `how`: "one by one", as a "chain" or as a "group".
"""


def report(request: Context, **more: object) -> None:
    """Report the time in the job with *request*, by the server's clock and by this host's."""
    facts = {
        "job": request.id,
        "number": request.retries,
        "host": SystemClock.now(),
        "worker": request.hostname,
        **more,
    }
    with redis.Redis.from_url(current_app.conf.result_backend) as client:
        seconds, microseconds = client.time()
        client.rpush(REPORTS, json.dumps({**facts, "now": seconds + microseconds / 1e6}))


def report_end(request: Context) -> None:
    """Report the time, however often the job is cut meanwhile.

    A job is cut again every quarter of a second until it ends, and a busy machine may take longer
    than that to report.
    """
    cut: BaseException | None = None
    while True:
        try:
            report(request)
        except BaseException as error:  # noqa: BLE001 - raised below
            cut = error
        else:
            break
    if cut is not None:
        raise cut


def report_beginning(request: Context) -> None:
    """Report the time, and what the job with *request* knows of its deadline."""
    deadline, budget = deadline_of(request.headers), current_budget()
    if deadline is None:
        msg = f"{request.id} has no deadline"
        raise LookupError(msg)
    report(
        request,
        parent=request.parent_id,
        plain=budget is None,
        at=deadline.at,
        total=deadline.total,
        left=0.0 if budget is None else budget.remaining(),
    )


def work(self: Task[Any, Any], *_: object, tree: Tree) -> None:
    """Run as long as *tree* says; then run again, or publish the children."""
    try:
        report_beginning(self.request)
        Event().wait(tree["run"])
    finally:
        report_end(self.request)
    if self.request.retries < tree["retries"]:
        raise self.retry(countdown=0, max_retries=tree["retries"])
    publish(self.app.tasks, tree)


def publish(do: Any, tree: Tree) -> None:  # noqa: ANN401 - Celery's registry
    """Publish the children of *tree*."""
    children = [signature(do, one) for one in tree["children"]]
    if tree["how"] == "one by one":
        for one in children:
            one.apply_async()
    elif children:
        (chain if tree["how"] == "chain" else group)(*children).apply_async()


def signature(do: Any, tree: Tree) -> Any:  # noqa: ANN401 - Celery's
    """Return the job of *tree*."""
    made = do["plain_work" if tree["plain"] else "work"].s(tree=tree).set(queue=tree["queue"])
    return made if tree["own"] is None else made.set(budget=tree["own"])


def make_app(**options: Any) -> Celery[Any]:  # noqa: ANN401 - as of Celery
    """Return an app with the tasks `work` and `plain_work`."""
    made: Celery[Any] = Celery("trees", **options)
    Resilience(made, dependencies=[Dependency("users")])
    made.conf.task_ignore_result = True
    made.task(name="work", bind=True, base=ResilientTask, shared=False)(work)
    made.task(name="plain_work", bind=True, base=Task, shared=False)(work)
    return made


app = make_app()  # for workers
