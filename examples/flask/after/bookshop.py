"""The same Flask app, whose Celery tasks degrade gracefully."""

import os
import smtplib

import httpx
from celery import Celery, Task, shared_task
from flask import Flask, current_app, jsonify

from resilience import Dependency, FireAndForgetTask, Resilience, ResilientTask, fallback

DEPENDENCIES = [
    Dependency("recommendations", concurrency=4, timeout=1.0),
    Dependency("mail", concurrency=2, timeout=2.0),
]


class InContext:
    """Runs a task in the context of the Flask app that made its Celery app."""

    def __call__(self, *args, **kwargs):
        """Push the context, then call the task as the classes behind this one do."""
        with self.app.flask_app.app_context():
            return super().__call__(*args, **kwargs)


class GuardedTask(InContext, ResilientTask):
    """A resilient task that can use `current_app`."""

    abstract = True


class KeptTask(InContext, FireAndForgetTask):
    """A fire-and-forget task that can use `current_app`."""

    abstract = True


def create_app() -> Flask:
    """Return the app; its Celery app is `app.extensions["celery"]`."""
    app = Flask(__name__)
    app.config.from_mapping(
        CELERY={
            "broker_url": os.environ["BROKER_URL"],
            "result_backend": os.environ["BROKER_URL"],
        },
        RECOMMENDATIONS_URL=os.environ["RECOMMENDATIONS_URL"],
        MAIL_PORT=int(os.environ["MAIL_PORT"]),
    )
    init_celery(app)

    @app.get("/recommendations/<int:user>")
    def recommendations(user):
        return jsonify(recommend.delay(user).get(timeout=5).to_dict())

    @app.get("/summary/<int:user>")
    def summary(user):
        return jsonify({"data": (recommend.s(user) | summarise.s()).delay().get(timeout=5)})

    @app.post("/orders/<int:order>")
    def orders(order):
        confirm.delay(order)
        return jsonify({"order": order}), 202

    return app


def init_celery(app: Flask) -> Celery:
    """Make the Celery app whose tasks run inside the context of *app*."""

    class ContextTask(InContext, Task):
        abstract = True

    celery = Celery(app.name, task_cls=ContextTask)
    celery.flask_app = app
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    Resilience(celery, dependencies=DEPENDENCIES)
    app.extensions["celery"] = celery
    return celery


@shared_task(
    base=GuardedTask,
    dependency="recommendations",
    fallbacks=[fallback.stale(max_age=3600), fallback.static([744, 417, 118])],
)
def recommend(user: int) -> list[int]:
    """Return product ids for *user*, the best first."""
    url = f"{current_app.config['RECOMMENDATIONS_URL']}/personalised/{user}"
    return httpx.get(url, timeout=30).raise_for_status().json()


@shared_task
def summarise(products: list[int]) -> str:
    """Describe a list of products."""
    return f"{len(products)} products"


@shared_task(base=KeptTask, dependency="mail", idempotency_key="order:{order}:mail")
def confirm(order: int) -> None:
    """Send a mail about *order*."""
    with smtplib.SMTP("127.0.0.1", current_app.config["MAIL_PORT"], timeout=30) as mail:
        text = f"Message-ID: <{order}@bookshop.example>\nSubject: order {order}\n\nThank you."
        mail.sendmail("shop@bookshop.example", ["ann@bookshop.example"], text)
