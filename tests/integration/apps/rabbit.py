"""An adopted app on RabbitMQ whose jobs say that they run, in a list of the store."""

import os
import signal
from typing import Any

import redis
from celery import Celery
from kombu import Queue

from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.task import ResilientTask

QUEUES = ("mail", "mail.retry")
URL = os.environ.get("CELERY_BROKER_URL", "amqp://nowhere")  # noqa: TID251 - an entry point
OWN = os.environ.get("OWN_QUEUE")  # noqa: TID251 - as above


def make_app(broker: str, settings: Settings, *, own_queue: bool = False) -> Celery:
    """Return the app; with *own_queue* it defines the dependency's queue itself."""
    app = Celery("rabbit", broker=broker, set_as_current=False)
    app.conf.result_backend = settings.store_url
    if own_queue:
        app.conf.task_queues = [Queue("mail", routing_key="mail")]
    Resilience(app, dependencies=[Dependency("mail")], settings=settings)
    options: dict[str, Any] = {"dependency": "mail", "shared": False}

    @app.task(name="send", base=FireAndForgetTask, **options)
    def send(key: str) -> None:
        _desk(settings).rpush(key, os.getpid())

    @app.task(name="end_worker", base=FireAndForgetTask, **options)
    def end_worker(key: str) -> None:
        _desk(settings).rpush(key, os.getppid())
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()

    @app.task(name="echo", base=ResilientTask, **options)
    def echo(value: Any) -> Any:  # noqa: ANN401 - any JSON
        return value

    return app


def _desk(settings: Settings) -> "redis.Redis":
    return redis.Redis.from_url(str(settings.store_url))


app = make_app(URL, Settings.from_environment(), own_queue=bool(OWN))
