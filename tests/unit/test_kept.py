"""What the ledger keeps of a job's message."""

import json
from typing import Any

from celery import Celery
from celery.app.task import Context

from resilience.tasks import FireAndForgetTask
from resilience.tasks.kept import job_of, message_of, options_of


def send(key: str) -> None:
    """Do nothing with *key*."""


def kept(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - as of `apply_async`
    """Return what is kept of a job that came with *options*."""
    app: Celery[Any] = Celery("kept", broker="memory://", set_as_current=False)
    task: Any = app.task(send, base=FireAndForgetTask, name="send", shared=False)
    options = {"task_id": "a", **options}
    headers, _, _ = message_of(task, ["x"], {}, options)
    headers |= options.get("headers", {})
    request = Context(headers, args=["x"], kwargs={}, delivery_info={"priority": 3})
    given = options_of(task, request)
    job = job_of(task, ["x"], {}, given, queue="mail.retry", ledger={}, age_seconds=0.0)
    message: dict[str, Any] = json.loads(job.message)
    return message


def test_job_is_kept_with_all_that_it_came_with() -> None:
    """Whatever ended its run, the next one has the same stamps, limits, words and priority."""
    given = {"expires": "2030-01-01T00:00:00+00:00", "argsrepr": "(hidden)", "time_limit": 9}
    stamps = {"stamped_headers": ["tenant"], "tenant": "shop"}

    message = kept(**given, **stamps, headers={"mine": 1}, retries=2)

    headers = message["headers"]
    assert headers["stamps"] == {"tenant": "shop"}
    assert headers["stamped_headers"] == ["tenant"]
    assert (headers["expires"], headers["argsrepr"]) == (given["expires"], given["argsrepr"])
    assert (headers["timelimit"], headers["retries"], headers["mine"]) == ([9, None], 2, 1)
    assert message["properties"]["priority"] == 3
