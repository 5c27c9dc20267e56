"""The demo's verdict, and what it leaves behind."""

import pytest

from tests.acceptance.running_demo import StartDemo

RUN_SECONDS = 400.0


@pytest.mark.timeout(500)
def test_demo_keeps_its_promises_and_leaves_nothing_behind(start_demo: StartDemo) -> None:
    """The outage by script ends by itself with a table, a verdict and exit code 0."""
    demo = start_demo("--quick")

    assert demo.process.wait(RUN_SECONDS) == 0, demo.output
    assert demo.processes() == []
    for words in ("recommendations", "p50/p99", "degraded gracefully", "processes have ended"):
        assert words in demo.output
    for promise in ("no user missed an own order", "every stale answer was marked"):
        assert f"kept   {promise}" in demo.output
    assert "(control)" in demo.output
