"""The demo's verdict, and what it leaves behind."""

import pytest

from tests.acceptance.running_demo import StartDemo

RUN_SECONDS = 400.0
NOT_JUDGED = 3


@pytest.mark.timeout(500)
def test_demo_keeps_its_promises_and_leaves_nothing_behind(start_demo: StartDemo) -> None:
    """The outage by script ends by itself with a table and a verdict; all promises are kept.

    If other programs kept the machine so busy that the demo could not judge one, this test cannot
    either: it is skipped, not passed.
    """
    demo = start_demo("--quick")

    code = demo.process.wait(RUN_SECONDS)
    assert code in (0, NOT_JUDGED), demo.output
    assert demo.processes() == []
    unknown = [line for line in demo.output.splitlines() if "not judged: other programs" in line]
    assert bool(unknown) is (code == NOT_JUDGED)
    assert ("degraded gracefully" in demo.output) is (code == 0)
    for words in ("recommendations", "p50/p99", "processes have ended"):
        assert words in demo.output
    for promise in ("no user missed an own order", "every stale answer was marked"):
        judged = not any(promise in line for line in unknown)
        assert (f"kept   {promise}" in demo.output) is judged
    assert "(control)" in demo.output
    if unknown:
        pytest.skip("; ".join(unknown))
