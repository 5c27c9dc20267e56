"""A plain Celery app as many are: retries, routes and priorities, and none of this library."""

import smtplib
from datetime import timedelta

from celery import Celery, Task, chain, group
from kombu import Queue

app = Celery("newsletter", broker="redis://127.0.0.1:9/0", backend="redis://127.0.0.1:9/1")
app.conf.update(
    task_queues=[Queue("celery"), Queue("mail", queue_arguments={"x-max-priority": 10})],
    task_routes={"newsletter.send_*": {"queue": "mail", "priority": 5}},
    task_acks_late=True,
    task_time_limit=300,
    task_soft_time_limit=240,
    broker_transport_options={"queue_order_strategy": "priority", "visibility_timeout": 3600},
    beat_schedule={
        "digest": {"task": "newsletter.digest", "schedule": timedelta(hours=1)},
        "now": {
            "task": "newsletter.send_issue",
            "schedule": timedelta(days=1),
            "args": (0, "all@example.org"),
            "options": {"expires": 3600, "priority": 9},
        },
    },
)


@app.task(
    name="newsletter.send_issue",
    bind=True,
    autoretry_for=(smtplib.SMTPException, OSError),
    retry_backoff=True,
    retry_backoff_max=600,
    max_retries=5,
    shared=False,
)
def send_issue(self: Task, issue: int, address: str) -> None:
    """Send an issue to a reader."""
    with smtplib.SMTP("127.0.0.1", timeout=10) as mail:
        mail.sendmail("news@example.org", [address], f"issue {issue}, try {self.request.retries}")


@app.task(name="newsletter.fetch", bind=True, max_retries=3, shared=False)
def fetch(self: Task, url: str) -> str:
    """Return a page, or try again later: each time twice as late."""
    try:
        return read(url)
    except OSError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error


@app.task(
    name="newsletter.digest",
    ignore_result=True,
    autoretry_for=(ConnectionError,),
    retry_backoff=5,
    shared=False,
)
def digest() -> None:
    """Publish an issue to all readers; nobody waits for it."""
    group(send_issue.s(7, f"reader{number}@example.org") for number in range(3)).delay()
    chain(fetch.s("https://example.org"), store.s()).delay()


@app.task(name="newsletter.store", ignore_result=True, priority=1, shared=False)
def store(page: str) -> None:
    """Keep a page."""
    settings = {"path": "/tmp"}  # noqa: S108 - nothing is written
    print(settings.get("path"), page)  # noqa: T201 - as people write


def read(url: str) -> str:
    """Pretend to read *url*."""
    return url
