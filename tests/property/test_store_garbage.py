"""Whatever the store holds, nothing that reads there ends in an error of its own."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.monitor.stored import KINDS, unreadable
from resilience.testing.valkey import ValkeyProcess
from tests.property.stored_readers import Everything, samples

ODD = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"[" * 3000,
    b"nan",
    b"inf",
    b"-1",
    b"1e308",
    b"9" * 15,
    b"9" * 400,
    b"9" * 5000,
    b"1|2",
    b"1|9999999999999999|",
    b'1|2|[1,"forced_open","x","a","r"]',
    b'1|9999999999999999|[1,"",0,"",""]',
    b"9999999999999999|" + b"9" * 16 + b'|[1e999,"open",NaN,1,2]',
    b'{"name":["a"],"until":9e15,"actor":"a","reason":"r"}',
    b'{"name":"mail","until":NaN,"actor":"a","reason":"r"}',
    b'{"name":"mail","until":1e300,"actor":"a","reason":"r","since":Infinity}',
    b'7|{"orders":{"extras":5,"other":{"state":"off","until":1e300}}}',
    b'7|{"trials":{"extras":{"id":"plan","share":0.5,"began":0,"until":1e300,"actor":"","reason":""}}}',
    b"12:{",
    b"9" * 330 + b":1",
    b"60000:" + b"[" * 3000,
    b'{"id":5,"host":[],"place":{},"seen":{}}',
    b'{"id":null,"seen":1e999}',
    b"99999999999999999999999|{}",
    b'1000 {"1":9}',
    b"nan [[1]]",
    b'{"trace_id":"' + b"f" * 32 + b'","at":1e999}',
    b'{"at":' + b"9" * 400 + b',"trace_id":"' + b"f" * 32 + b'"}',
    b"99|99",
    b"9" * 400 + b"|1",
    b"9000000000000000|=5:x",
]
VALUES = st.sampled_from(ODD) | st.binary(max_size=90)
SCORES = st.sampled_from([float("inf"), float("-inf"), -1.0, 0.0, 1e300, 1e16])
TYPES = ("string", "hash", "list", "zset", "set", "stream")
TYPE_OF = {kind.pattern: kind.type for kind in KINDS}
PACKED = st.binary(min_size=56, max_size=120)


@pytest.fixture(scope="module")
def everything(valkey: ValkeyProcess) -> Everything:
    """One app; each example begins with an empty namespace."""
    return Everything(valkey.url)


def put(client: Any, key: str, kind: str, field: str, value: bytes, score: float) -> None:  # noqa: ANN401 - redis-py's
    """Put garbage of a type of the server under *key*."""
    if client.type(key) not in (b"none", kind.encode()):
        client.delete(key)
    match kind:
        case "string":
            client.set(key, value)
        case "hash":
            client.hset(key, field, value)
        case "list":
            client.rpush(key, value)
        case "zset":
            client.zadd(key, {field or value: score})
        case "set":
            client.sadd(key, value)
        case "stream":
            client.xadd(key, {"x": value})


def check_examples(everything: Everything, examples: int) -> None:
    """Let every reader meet garbage under all kinds of keys at once, *examples* times."""

    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def check(data: Any) -> None:  # noqa: ANN401 - Hypothesis'
        client: Any = everything.store.client
        for key in client.scan_iter(everything.store.key("*"), count=1000):
            client.delete(key)
        everything.app.pulse.refresh()
        for kind, (key, fields) in samples(everything).items():
            stored = data.draw(st.just(TYPE_OF[kind]) | st.sampled_from(TYPES), label=kind)
            value = data.draw(PACKED | VALUES if kind == "windows" else VALUES)
            field = data.draw(st.sampled_from([*fields, "", "x"]))
            put(client, key, stored, field, value, data.draw(SCORES))

        everything.read_all()

        assert everything.app.pulse.refresh() > 0
        assert everything.app.pulse.scope == "fleet"
        assert everything.breaker("shop").call(int) == 0
        found = [*unreadable(everything.app, repair=True)]
        assert all(one.repaired for one in found), found
        assert not [*unreadable(everything.app)]

    check()


def test_no_reader_fails_whatever_the_store_holds(everything: Everything) -> None:
    """Each name with garbage counts as absent; the fleet and the other names go on."""
    check_examples(everything, 20)


@pytest.mark.long
def test_no_reader_fails_in_many_examples(everything: Everything) -> None:
    """The same, for longer."""
    check_examples(everything, 3000)
