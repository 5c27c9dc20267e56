"""The demo's verdict, and what it leaves behind."""

import pytest

from tests.acceptance.running_demo import StartDemo

RUN_SECONDS = 400.0


@pytest.mark.timeout(500)
def test_demo_keeps_its_promises_and_leaves_nothing_behind(start_demo: StartDemo) -> None:
    """The outage by script ends by itself with a table and a verdict; no promise is broken.

    Exit code 0, or 3 if other programs kept the machine so busy that a promise was not judged.
    """
    demo = start_demo("--quick")

    code = demo.process.wait(RUN_SECONDS)
    assert code in (0, 3), demo.output
    assert demo.processes() == []
    assert ("not judged: other programs used" in demo.output) is (code == 3)
    assert ("degraded gracefully" in demo.output) is (code == 0)
    for words in ("recommendations", "p50/p99", "processes have ended"):
        assert words in demo.output
    for promise in ("no user missed an own order", "every stale answer was marked"):
        assert f"kept   {promise}" in demo.output
    assert "(control)" in demo.output
