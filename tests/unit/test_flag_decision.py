"""Whether a feature is on: the edges of orders, and what may probe."""

import pytest

from resilience import Feature, Level
from resilience.flags.decision import Source, decide, let_probe
from resilience.flags.document import BROWNOUT, Document, Order, Shed, State

RANKING = Feature("ranking", level=Level.REDUCED)


@pytest.mark.parametrize(
    ("name", "state", "source"),
    [
        pytest.param("ranking", "off", Source.ORDER, id="order"),
        pytest.param(BROWNOUT, Level.REDUCED, Source.BROWNOUT, id="brownout"),
    ],
)
def test_order_is_in_force_until_its_end(name: str, state: State | Level, source: Source) -> None:
    """At the very moment that it names it is over: its end is announced as that."""
    order = Order(state=state, until=100.0, actor="ann", reason="so", version=1, at=0.0)
    document = Document(orders={name: order})

    assert decide(RANKING, document, 99.999).source is source
    assert decide(RANKING, document, 100.0).source is Source.DEFAULT


@pytest.mark.parametrize(("rule", "probes"), [("open:search", True), ("held:search", False)])
def test_only_what_an_open_circuit_shed_may_probe(rule: str, *, probes: bool) -> None:
    """A held dependency is left alone, whatever its circuit does meanwhile."""
    shed = Shed(rule=rule, measured=1.0, threshold=1.0, since=0.0)
    decision = decide(RANKING, Document(shed={"ranking": shed}), 1.0)

    assert (decision.enabled, decision.reason) == (False, rule)
    assert let_probe(decision, lambda _: True).enabled is probes
    assert let_probe(decision, lambda _: False) == decision
