"""An app whose jobs call others as a tree says, and tell when they ran; workers import `app`."""

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

TOLD = "told"
QUEUE = "celery"
Tree = dict[str, Any]
"""A job: how long it `run`s, its `own` budget, the `queue` it goes through, how often it is run
again (`retries`), whether its task is of Celery's own class (`plain`), and `how` it publishes its
`children`."""


def tell(request: Context, **more: object) -> None:
    """Write down when it is in the job with *request*, by the server's clock and by this host's."""
    said = {
        "job": request.id,
        "number": request.retries,
        "host": SystemClock.now(),
        "worker": request.hostname,
        **more,
    }
    with redis.Redis.from_url(current_app.conf.result_backend) as client:
        seconds, microseconds = client.time()
        client.rpush(TOLD, json.dumps({**said, "now": seconds + microseconds / 1e6}))


def tell_whole(request: Context) -> None:
    """Write down when it is, even if the job is cut right then: it is so once."""
    try:
        tell(request)
    except BaseException:
        tell(request)
        raise


def tell_all(request: Context) -> None:
    """Write down what the job with *request* knows of its time as well."""
    deadline, budget = deadline_of(request.headers), current_budget()
    if deadline is None:
        msg = f"{request.id} has no deadline"
        raise LookupError(msg)
    tell(
        request,
        parent=request.parent_id,
        plain=budget is None,
        at=deadline.at,
        total=deadline.total,
        left=0.0 if budget is None else budget.remaining(),
    )


def work(self: Task[Any, Any], *_: object, tree: Tree) -> None:
    """Take the time that *tree* says, then publish its children, or run again."""
    try:
        tell_all(self.request)
        Event().wait(tree["run"])
    finally:
        tell_whole(self.request)
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
    """Return an app with both tasks."""
    made: Celery[Any] = Celery("trees", **options)
    Resilience(made, dependencies=[Dependency("users")])
    made.conf.task_ignore_result = True
    made.task(name="work", bind=True, base=ResilientTask, shared=False)(work)
    made.task(name="plain_work", bind=True, base=Task, shared=False)(work)
    return made


app = make_app()
