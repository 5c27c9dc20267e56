"""An app that loses a job when its worker is killed: it acknowledges before the work is done."""

from threading import Event

from celery import Celery

from resilience import Resilience

app = Celery("careless", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
app.conf.worker_concurrency = 2
Resilience(app, dependencies=[])


@app.task(shared=False)
def ping() -> str:
    """Answer."""
    return "pong"


@app.task(shared=False, acks_late=False, ignore_result=True)
def mail() -> None:
    """Take longer than any test."""
    Event().wait(600)
