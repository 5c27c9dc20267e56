"""What the flags of a followed provider make of the orders that are in force."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.flags.document import Document, Order
from resilience.flags.intent import follow_edit

FOLLOW_SECONDS = 300.0

FEATURES = ("ranking", "spelling", "beta")
NAME = "OpenFeature In-Memory Provider"


def order(state: Literal["on", "off", "auto"], until: float, actor: str) -> Order:
    """Return an order."""
    return Order(state=state, until=until, actor=actor, reason="?", version=3, at=0.0)


def test_order_is_renewed_at_half_its_time_and_ends_without_answers() -> None:
    """So an order outlives a provider by at least half of it, and by no more than all of it."""
    edit = follow_edit({"ranking": "off"}, NAME)
    first = edit(Document(), 0.0)
    assert first is not None
    assert edit(first, FOLLOW_SECONDS / 2 - 1) is None
    renewed = edit(first, FOLLOW_SECONDS / 2 + 1)
    assert renewed is not None
    assert renewed.orders["ranking"].until == pytest.approx(FOLLOW_SECONDS * 1.5 + 1)
    again = edit(first, FOLLOW_SECONDS + 1)
    assert again is not None
    assert again.orders["ranking"].state == "off"


STATES = st.sampled_from(["on", "off", "auto"])
NAMES = st.sampled_from(sorted(FEATURES))
ORDERS = st.builds(order, STATES, st.floats(0, 1000), st.sampled_from([NAME, "ann"]))


@given(
    st.dictionaries(NAMES, ORDERS),
    st.dictionaries(NAMES, STATES),
    st.floats(0, 1000),
)
def test_edit_never_touches_what_others_have_ordered(
    before: Mapping[str, Order], wanted: Mapping[str, Any], now: float
) -> None:
    """Nor what nobody asked for; what it leaves is as the provider wants it, and settled."""
    document = Document(orders=dict(before))
    made = follow_edit(wanted, NAME)(document, now) or document
    for name in FEATURES:
        old, new = before.get(name), made.orders.get(name)
        in_force = old is not None and old.state != "auto" and old.until > now
        if name not in wanted or (in_force and old is not None and old.actor != NAME):
            assert new == old
        elif new is None:
            assert wanted[name] == "auto"
        else:
            assert (new.state if new.until > now else "auto") == wanted[name]
            assert wanted[name] == "auto" or new.until - now >= FOLLOW_SECONDS / 2
    assert follow_edit(wanted, NAME)(made, now) is None
