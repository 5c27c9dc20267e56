"""The key under which a call's last good answer is remembered."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from resilience.store import Answers, Store
from tests.unit.untimed import untimed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def shuffled(value: Any, dice: random.Random) -> Any:  # noqa: ANN401 - any JSON
    """Return *value* with every mapping in it filled in another order."""
    if isinstance(value, list):
        return [shuffled(item, dice) for item in value]
    if isinstance(value, dict):
        items = list(value.items())
        dice.shuffle(items)
        return {name: shuffled(item, dice) for name, item in items}
    return value


NOWHERE = Answers(Store("redis://127.0.0.1:9/0", namespace="shop"))


@untimed
@given(st.lists(JSON, max_size=3), st.dictionaries(st.text(), JSON, max_size=3), st.randoms())
def test_call_has_the_same_key_for_equal_arguments(
    args: list[Any], kwargs: dict[str, Any], dice: random.Random
) -> None:
    """The order in which a mapping was filled or keywords were written does not matter."""
    key = NOWHERE.key_of_call("f", args, kwargs)

    assert NOWHERE.key_of_call("f", tuple(shuffled(args, dice)), shuffled(kwargs, dice)) == key


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("f", (1,), {}),
    ("g", (1,), {}),
    ("f", (2,), {}),
    ("f", ("1",), {}),
    ("f", (), {}),
    ("f", (1, 1), {}),
    ("f", ([1],), {}),
    ("f", (["a", 1],), {}),
    ("f", ({"a": 1},), {}),
    ("f", (None,), {}),
    ("f", (True,), {}),
    ("f", (), {"a": 1}),
    ("f", (), {"a": 2}),
    ("f", (), {"a": "1"}),
    ("f", (), {"b": 1}),
    ("f", (), {"a": None}),
    ("f", (), {"a": 1, "b": 1}),
    ("f", (), {"a": 1, "b": 2}),
    ("f", (), {"a": {"b": 1}}),
    ("f", (1,), {"a": 1}),
    ("f", (1,), {"a": 2}),
    ("g", (), {"a": 1}),
]


def test_call_has_another_key_for_anything_else() -> None:
    """No call ever gets the answer to another function, other arguments or other keywords."""
    calls: dict[str, list[Any]] = {}
    for call in CALLS:
        calls.setdefault(NOWHERE.key_of_call(*call), []).append(call)

    assert [same for same in calls.values() if len(same) > 1] == []


def test_key_does_not_show_the_arguments() -> None:
    """Whoever lists the keys of a server cannot read what users asked for."""
    key = NOWHERE.key_of_call("f", ("jane@example.com",), {})

    assert key.startswith("{shop}:answer:f:")
    assert "jane" not in key
