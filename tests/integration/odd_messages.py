"""Messages as they may come from anybody, for Hypothesis: most begin as a good one."""

import base64
import json
from typing import Any
from uuid import uuid4

import amqp
from hypothesis import strategies as st

from resilience.broker import CRASHES_HEADER
from resilience.tasks import envelope
from tests.integration.apps.outside import QUEUE

CANARIES = ("canary", "{resilience}:canary", "celery-task-meta-canary")
"""Keys of others, which no message may change."""
TYPES = ("nope", "decimal", "uuid", "datetime", "base64", "outcome", "resilience")
TASKS = ("plain", "resilient", "fired", "fired", "no such task")
CONTENT_TYPES = ("application/json", "application/x-python-serialize", "text/plain", "x", "")
ENCODINGS = ("utf-8", "binary", "no-encoding", "")
COMPRESSIONS = ("application/x-gzip", "application/x-no", "gzip", "")
OURS = (
    envelope.BUDGET_HEADER,
    envelope.RECEIVED_HEADER,
    envelope.SENT_HEADER,
    envelope.SLOT_HEADER,
    envelope.LANE_HEADER,
    envelope.JOB_HEADER,
    envelope.LEVEL_HEADER,
    envelope.POSITION_HEADER,
    envelope.POSTPONED_HEADER,
    CRASHES_HEADER,
)
CELERYS = (
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "expires",
    "eta",
    "retries",
    "timelimit",
    "argsrepr",
    "shadow",
    "ignore_result",
    "stamps",
    "stamped_headers",
    "replaced_task_nesting",
    "compression",
    "headers",
    "meth",
    "lang",
    "redelivered",
)
FIELDS = (
    *("deadline", "total", "sent", "hops", "fan", "part", "required", "last", "stale_seconds"),
    *(
        "stale_key",
        "born",
        "attempts",
        "dispatches",
        "lost",
        "origin",
        "serializer",
        "level",
        "age",
    ),
    *("reason", "source", "dependency", "data", "unknown", "at"),
)
HUGE = "a huge number"
"""Stands for an integer of 5,000 digits."""

_numbers = st.one_of(
    st.integers(-1, 3),
    st.sampled_from((2**31, 2**63 - 1, -(2**63), 1e308, -1e308, 1.5, 0.0)),
)
_texts = st.one_of(st.sampled_from(("", "x", *CANARIES, *TASKS)), st.text(max_size=8))
_leaves = st.one_of(st.none(), st.booleans(), _numbers, _texts)
_wide_leaves = st.one_of(
    _leaves,
    st.sampled_from((float("inf"), float("-inf"), float("nan"), 2**64, HUGE, "\ud800", "\x00")),
)


def written(value: object) -> str:
    """Return *value* as JSON, also with a number that Python writes as little as it reads it."""
    return json.dumps(value).replace(json.dumps(HUGE), "9" * 5000)


def _typed(kind: str, value: object) -> dict[str, object]:
    """Return what kombu takes for a value of another type."""
    return {"__type__": kind, "__value__": value}


def _job(task: str, *more: dict[str, Any]) -> dict[str, Any]:
    """Return the headers of a job, or what *more* makes of them."""
    headers: dict[str, Any] = {"task": task, "id": uuid4().hex}
    for one in more:
        headers |= one
    return headers


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from((*FIELDS, "x")), inner, max_size=4),
            st.builds(
                lambda kind, it: {"__type__": kind, "__value__": it}, st.sampled_from(TYPES), inner
            ),
        ),
        max_leaves=6,
    )


def _ours(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return one of our headers: any value, or fields of which most are good."""
    good = {
        envelope.BUDGET_HEADER: {"deadline": 1.0, "total": 5.0, "sent": 0.0, "hops": []},
        envelope.SLOT_HEADER: {
            "fan": "f",
            "part": "p",
            "stale_key": CANARIES[0],
            "stale_seconds": 9,
        },
        envelope.JOB_HEADER: {"born": 1.0, "attempts": 1, "dispatches": 1},
        envelope.LEVEL_HEADER: {"level": 1, "reason": "x", "age": 1.0},
        CRASHES_HEADER: 3,
    }
    changes = st.dictionaries(st.sampled_from(FIELDS), values, max_size=2)

    def header(name: str, value: object, changed: dict[str, Any], keep: bool) -> dict[str, Any]:  # noqa: FBT001
        own: Any = good.get(name)
        if keep and isinstance(own, dict):
            return {name: {**own, **changed}}
        return {name: own if keep and own else value}

    return st.builds(header, st.sampled_from(OURS), values, changes, st.booleans())


def _headers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    others = st.dictionaries(st.sampled_from(CELERYS), values, max_size=2)
    ours = _ours(values)
    return st.builds(_job, st.sampled_from(TASKS), ours, ours | st.just({}), others | st.just({}))


def _bodies(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return bodies as text: most are JSON of arguments."""
    arguments = st.sampled_from(([["fuzzed"], {}, {}], [[], {"key": "fuzzed"}, {}], [[], {}, {}]))
    embedded = st.tuples(st.just([1]), values).map(list)
    odd = st.one_of(st.tuples(values, values, values).map(list), values, embedded)
    return st.one_of(arguments, arguments, odd).map(written) | st.sampled_from(("", "{", "abc"))


_wide = _nested(_wide_leaves)
_narrow = _nested(_leaves).filter(lambda value: len(str(value)) < 500)


@st.composite
def on_redis(draw: st.DrawFn) -> bytes:
    """Return what somebody pushes to a queue in Redis."""
    body, encoding = draw(_bodies(_wide)), draw(st.sampled_from(("base64", "base64", None)))
    if encoding:
        body = base64.b64encode(body.encode(errors="surrogatepass")).decode()
    properties: dict[str, Any] = {
        "delivery_tag": uuid4().hex,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": encoding,
    }
    message: dict[str, Any] = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": draw(_headers(_wide)),
        "properties": properties,
    }
    kind = draw(st.integers(0, 9))
    if kind == 0:
        message[draw(st.sampled_from(tuple(message)))] = draw(_wide)
    elif kind == 1:
        properties[draw(st.sampled_from((*properties, "correlation_id", "reply_to")))] = draw(_wide)
    elif kind == 2:
        message["content-type"] = draw(st.sampled_from(CONTENT_TYPES))
        message["content-encoding"] = draw(st.sampled_from(ENCODINGS))
        message["headers"]["compression"] = draw(st.sampled_from(COMPRESSIONS))
    raw = written(message).encode()
    if kind == 3:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at + draw(st.integers(0, 3)) :]
    return raw


@st.composite
def on_rabbitmq(draw: st.DrawFn) -> amqp.Message:
    """Return what somebody publishes to RabbitMQ."""
    more: dict[str, Any] = {}
    if draw(st.integers(0, 4)) == 0:
        more = {
            "content_type": draw(st.sampled_from(CONTENT_TYPES)),
            "content_encoding": draw(st.sampled_from(ENCODINGS)),
            "priority": draw(st.integers(0, 255)),
            "correlation_id": draw(st.sampled_from(CANARIES)),
        }
    about = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
    return amqp.Message(
        draw(_bodies(_wide)).encode(errors="surrogatepass"),
        application_headers=draw(_headers(_narrow)),
        message_id=uuid4().hex,
        **{**about, **more},
    )
