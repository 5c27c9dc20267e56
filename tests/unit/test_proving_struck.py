"""What the records of a proof say of a planned fault: it struck, or it did not."""

from types import SimpleNamespace

import pytest

from resilience.chaos.proving.inject import struck
from resilience.chaos.proving.plan import Kind, Planned
from resilience.chaos.proving.records import Record

INJECTED = {"record": "FaultInjected", "fault": "proof-users"}
DROPPED = {"record": "BudgetExceeded", "task": "shop.user", "late": 0.1}
FULL = {"record": "JobRefused", "dependency": "users", "error": "BulkheadFullError('users')"}
REFUSED = {"record": "AnswerDegraded", "dependency": "users", "reason": "CircuitOpenError: users"}
TASKS = {
    "shop.user": SimpleNamespace(dependency="users"),
    "shop.price": SimpleNamespace(dependency="prices"),
}


@pytest.mark.parametrize(
    ("kind", "record", "expected"),
    [
        pytest.param("error", INJECTED, True, id="injected"),
        pytest.param("error", {**INJECTED, "fault": "proof-prices"}, False, id="other-fault"),
        pytest.param("error", {**INJECTED, "fault": "proof-mark-users"}, False, id="mark"),
        pytest.param("killed", INJECTED, False, id="kept-and-not-killed"),
        pytest.param("late", DROPPED, True, id="dropped"),
        pytest.param("late", {**DROPPED, "late": -0.1}, False, id="cut-before-its-deadline"),
        pytest.param("late", {**DROPPED, "task": "shop.price"}, False, id="other-task"),
        pytest.param("full", FULL, True, id="full"),
        pytest.param("full", {**FULL, "dependency": "prices"}, False, id="full-elsewhere"),
        pytest.param("refused", REFUSED, True, id="refused"),
        pytest.param("refused", FULL, False, id="refused-by-no-circuit"),
    ],
)
def test_fault_struck_only_if_its_own_record_says_so(
    kind: Kind, record: Record, *, expected: bool
) -> None:
    """A fault that another one, or nothing, stands for would be proved by nobody."""
    assert struck(Planned("users", kind), [record], TASKS) is expected
