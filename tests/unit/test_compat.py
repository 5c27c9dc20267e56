"""What Celery 5.6 lacks is there on every version of Celery that is supported."""

from typing import Any

import pytest
from celery import Celery, Task
from celery.concurrency import get_implementation
from celery.result import AsyncResult
from kombu import Queue
from kombu.asynchronous import Hub
from kombu.message import Message

from resilience.compat import (
    acknowledge_ended,
    consume_from_these_only,
    is_set,
    named_as,
    size_of,
)


class Acknowledged(Message):
    """A message that notes its acknowledgement; one of a lost connection raises."""

    def __init__(self, noted: list[str], *, lost: bool = False) -> None:
        """Begin with nothing noted."""
        super().__init__(body="")
        self.noted, self.lost = noted, lost

    def ack_log_error(self, *_: object) -> None:
        """Acknowledge."""
        if self.lost:
            raise ConnectionError
        self.noted.append("acknowledged")


class Namespaced:
    """Settings as Django projects write them."""

    CELERY_CONTROL_QUEUE_DURABLE = False


def test_classes_of_celery_take_type_parameters() -> None:
    """Annotations that are read at run time work."""
    assert Task[[int], str]
    assert AsyncResult[int]


def test_worker_that_is_told_no_queues_takes_from_those_of_the_app_only() -> None:
    """Later queues are consumed from when somebody asks for them."""
    app: Any = Celery(set_as_current=False)
    queues = app.amqp.Queues([Queue("own"), Queue("other")])

    consume_from_these_only(queues)
    queues.add(Queue("payments"))
    assert set(queues.consume_from) == {"own", "other"}

    queues.select_add("asked")
    queues.deselect("own")
    assert set(queues.consume_from) == {"other", "asked"}

    queues.select(["payments"])
    assert set(queues.consume_from) == {"payments"}


@pytest.mark.parametrize("pool", ["gevent", "threads", "solo"])
def test_size_of_a_pool_is_what_it_can_run(pool: str) -> None:
    """Also while nothing runs in it."""
    kind: Any = get_implementation(pool)

    assert size_of(kind(limit=4)) == (1 if pool == "solo" else 4)


@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_setting_of_the_app_is_found(namespace: str | None) -> None:
    """With a namespace and without, and no setting that the app leaves to Celery."""
    app: Any = Celery(set_as_current=False)
    if namespace is None:
        app.conf.control_queue_durable = False
    else:
        app.config_from_object(Namespaced, namespace=namespace)

    assert app.conf.task_acks_late is False
    assert is_set(app.conf, "control_queue_durable")
    assert not is_set(app.conf, "control_queue_exclusive")


def test_settings_bear_the_names_that_celery_ships_them_by() -> None:
    """A setting that this Celery does not have keeps its name."""
    shipped = {"CELERY_ACKS_LATE": False, "broker_heartbeat": 120}

    named = named_as(shipped, {"task_acks_late": True, "broker_heartbeat": 7, "newer": 1})

    assert named == {"CELERY_ACKS_LATE": True, "broker_heartbeat": 7, "newer": 1}


def test_acknowledgements_that_wait_are_done_and_nothing_else() -> None:
    """One that fails keeps no other from its turn."""
    hub, noted = Hub(), list[str]()
    hub.call_soon(noted.append, "read")
    for lost in (True, False):
        hub.call_soon(Acknowledged(noted, lost=lost).ack_log_error, None, ())

    acknowledge_ended(hub)

    assert noted == ["acknowledged"]
