"""A fire-and-forget task that names no dependency."""

import pytest
from celery import Celery

from resilience import ConfigurationError, Dependency, FireAndForgetTask, Resilience


def test_task_without_a_dependency_is_not_published() -> None:
    """Its publisher hears so, as a job that fails would have no retry queue to wait in."""
    app = Celery("without", broker="memory://", set_as_current=False)
    Resilience(app, dependencies=[Dependency("mail")])

    @app.task(shared=False, base=FireAndForgetTask, name="receipt")
    def receipt(order: int) -> int:
        return order

    with pytest.raises(ConfigurationError, match="receipt names no dependency"):
        receipt.delay(7)
    assert receipt.apply((7,)).get() == 7
    app.close()
