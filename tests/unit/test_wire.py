"""Answers within answers, through what Celery sends."""

from resilience import Outcome, PartialResponse
from resilience.tasks.serialization import dumps, loads


def test_nested_answers_arrive_as_themselves() -> None:
    """What goes into a message comes out of it, type by type."""
    response = PartialResponse(data={"user": Outcome(value=1)}, missing=["ads"])
    nested = Outcome(value=[response, {"page": response}])

    assert loads(dumps(nested)) == nested
