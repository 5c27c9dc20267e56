"""Messages that cannot be read end no worker: they are set aside, and the next one is taken."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import amqp
import pytest
from kombu import Connection

from resilience.monitor.status import look
from resilience.tasks import Resilience
from resilience.testing.waiting import wait_until
from tests.brokers import KINDS, Rabbit
from tests.integration.apps.outside import QUEUE
from tests.integration.outside_stage import SECONDS, SET_ASIDE, Outside, outside

INFO = {"exchange": "", "routing_key": QUEUE}
BODY = json.dumps([["key"], {}, {}])
BUDGET = {"deadline": 1.0, "total": 1.0, "sent": 0.0, "hops": []}


@pytest.fixture(scope="module", params=KINDS)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """A worker on each broker."""
    with outside(request.param, request, tmp_path_factory) as running:
        yield running


def raw(**fields: object) -> bytes:
    """Return a message as a Redis broker keeps it; *fields* take the place of good ones."""
    properties = {"delivery_tag": "a tag", "delivery_info": INFO, "priority": 0}
    message = {
        "body": BODY,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "resilient", "id": "an id", "lang": "py"},
        "properties": properties,
    }
    return json.dumps(
        {**message, **{name.replace("_", "-"): it for name, it in fields.items()}}
    ).encode()


def headers(**more: object) -> dict[str, object]:
    """Return headers; *more* take the place of good ones."""
    return {"task": "resilient", "id": "an id", **more}


def properties(**more: object) -> dict[str, object]:
    """Return properties; *more* take the place of good ones."""
    return {"delivery_tag": "another tag", "delivery_info": INFO, "priority": 0, **more}


ON_REDIS: Mapping[str, bytes] = {
    "not JSON": b"no json",
    "not UTF-8": b"\xff\xfe" + raw(),
    "no object": b"[]",
    "no properties": b'{"body": ""}',
    "no delivery tag": raw(properties={"delivery_info": INFO}),
    "a delivery tag that is none": raw(properties=properties(delivery_tag=7)),
    "properties that are a type of kombu's": raw(
        properties={"__type__": "nope", "__value__": 1, "delivery_tag": "t1"}
    ),
    "a header of no type that kombu knows": raw(
        headers=headers(x={"__type__": "n", "__value__": 1})
    ),
    "a number of 5,000 digits": raw(headers=headers(x=0)).replace(
        b'"x": 0', b'"x": ' + b"9" * 5000
    ),
    "half a surrogate pair": raw(headers=headers(x="\ud800")),
    "base64 that is none": raw(body="abc", properties=properties(body_encoding="base64")),
    "an unknown body encoding": raw(properties=properties(body_encoding="rot13")),
    "a body that is a number in base64": raw(body=5, properties=properties(body_encoding="base64")),
    "headers that are a list": raw(headers=[1]),
    "headers that are a text": raw(headers="x"),
    "a task name that is a list": raw(headers=headers(task=["resilient"])),
    "an id that is a list": raw(headers=headers(id=["id"])),
    "an unknown task with an id that is a list": raw(headers={"task": "no task", "id": ["id"]}),
    "an unknown task without an id": raw(headers={"task": "no task"}),
    "a body that is a number": raw(body=5),
    "a body that is null": raw(body=None),
    "a body that is broken": raw(body='{"'),
    "a body that is a JSON number": raw(body="5"),
    "no task": raw(headers={}),
    "an unknown content type": raw(content_type="application/nothing"),
    "a content type that is not accepted": raw(content_type="application/x-python-serialize"),
    "an unknown content encoding": raw(content_encoding="no-encoding"),
    "an unknown compression": raw(headers=headers(compression="application/x-no")),
    "a compression that is none": raw(headers=headers(compression="application/x-gzip")),
    "delivery info that is a list": raw(properties=properties(delivery_info=[1])),
    "a poisonous job with arguments that are a number": raw(
        body="[5, {}, {}]", headers=headers(task="fired", **{"resilience-crashes": 3})
    ),
    "a poisonous job with a body that is a number": raw(
        body="5", headers=headers(**{"resilience-crashes": 3})
    ),
    "a late part that is kept for ever": raw(
        headers=headers(
            **{
                "resilience-budget": BUDGET,
                "resilience-slot": {
                    "fan": "f",
                    "part": "p",
                    "stale_key": "a key",
                    "stale_seconds": float("inf"),
                },
            }
        )
    ),
}
AS_CELERY = {
    "properties that are a type of kombu's",
    "an unknown content encoding",
    "a late part that is kept for ever",
}
"""Those end as on plain Celery: they run, fail, or are dropped as late."""


def message(body: Any = BODY, **more: Any) -> amqp.Message:  # noqa: ANN401 - any body
    """Return a message for RabbitMQ; *more* are properties, or headers under `headers`."""
    given = more.pop("headers", headers())
    about = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
    return amqp.Message(body, application_headers=given, **{**about, **more})


ON_RABBITMQ: Mapping[str, amqp.Message] = {
    "a body that is broken": message('{"'),
    "a body that is a JSON number": message("5"),
    "no body": message(""),
    "no UTF-8": message(b"\xff\xfe"),
    "arguments of a poisonous job that are a number": message(
        "[5, {}, {}]", headers=headers(task="fired", **{"resilience-crashes": 3})
    ),
    "a number of 5,000 digits": message(f"[[{'9' * 5000}], {{}}, {{}}]"),
    "a task name that is a list": message(headers=headers(task=["resilient"])),
    "an id that is a list": message(headers=headers(id=["id"])),
    "no task": message(headers={}),
    "an unknown content type": message(content_type="application/nothing"),
    "a content type that is not accepted": message(content_type="application/x-python-serialize"),
    "an unknown content encoding": message(BODY.encode(), content_encoding="no-encoding"),
    "an unknown compression": message(headers=headers(compression="application/x-no")),
    "a compression that is none": message(headers=headers(compression="application/x-gzip")),
    "a message that does not last": message('{"', delivery_mode=1),
}


def as_sent(one: Any) -> Any:  # noqa: ANN401 - of either broker
    """Return what must be unchanged of a message that was set aside."""
    if isinstance(one, bytes):
        return one
    body = one.body.encode() if isinstance(one.body, str) else bytes(one.body)
    about = dict(one.properties)
    given = dict(about.pop("application_headers", {}) or {})
    given.pop("resilience-unreadable", None)
    kept = ("content_type", "content_encoding")
    return body, sorted(given.items(), key=str), {name: about.get(name) for name in kept}


def test_message_that_cannot_be_read_is_set_aside_whole_and_the_next_is_taken(
    stage: Outside,
) -> None:
    """Each with its reason and time, an event, and no restart; good jobs between them run once."""
    every = ON_REDIS if stage.broker.url.startswith("redis") else ON_RABBITMQ
    good = stage.good()
    for one in every.values():
        stage.deliver(one)
        good |= stage.good() if len(good) < 12 else set()
    good |= stage.good()

    stage.await_done(good)
    stage.await_end()
    least = len(every.keys() - AS_CELERY)
    wait_until(lambda: stage.broker.kept(SET_ASIDE) >= least, SECONDS, "all are set aside")

    status = look(Resilience.of(stage.app), workers={QUEUE: 1})
    aside = stage.take_set_aside()
    assert status["unreadable"] == {QUEUE: len(aside)}
    assert [one["kind"] for one in status["notes"] if one["name"] == QUEUE][-1] == "set_aside"
    found = [as_sent(one) for one, _ in aside]
    lost = {name for name, one in every.items() if as_sent(one) not in found}
    assert lost <= AS_CELERY
    assert len(found) == len(every) - len(lost)
    assert all(why["reason"] and why["time"] > 1.7e9 for _, why in aside)
    assert len(stage.events()) == len(found)
    assert not stage.restarts()


def test_order_that_cannot_be_read_ends_no_worker(stage: Outside) -> None:
    """Whatever comes in place of a remote control command, the next one is obeyed."""
    deep = b"[" * 100_000
    if isinstance(stage.broker, Rabbit):
        with Connection(stage.broker.url) as connection:
            channel: Any = connection.default_channel
            for one in (message(deep), message("5"), message("{"), message("[]", headers={"x": 1})):
                channel.basic_publish(one, exchange="celery.pidbox")
    else:
        client = stage.broker.client()
        for text in (
            deep,
            b"5",
            b"[]",
            b"{",
            b'{"properties": 5}',
            raw(body="5"),
            *ON_REDIS.values(),
        ):
            client.publish("/0.celery.pidbox", text)

    def answers() -> bool:
        # Celery declares its control queue anew after an order that failed: one may get lost.
        found = stage.app.control.ping(destination=[stage.worker.hostname], timeout=5, limit=1)
        return bool(found)

    wait_until(answers, SECONDS, "the worker obeys")
    keys = stage.good()
    stage.await_done(keys)
    assert stage.worker.running
    assert "Unrecoverable" not in stage.worker.log
