"""Slots in a process that gevent has patched, with hundreds of greenlets."""

import json
import subprocess
import sys

from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess

SECONDS = 120.0
SCRIPT = "tests/integration/apps/slots_gevent.py"


def test_greenlets_take_turns_and_block_nobody(valkey: ValkeyProcess) -> None:
    """Never more than the slots, waits end in time, a lease is renewed, a killed one's is free."""
    done = subprocess.run(  # noqa: S603 - of this directory
        [sys.executable, "-m", "gevent.monkey", SCRIPT, valkey.url],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=inherited_env({"PYTHONPATH": import_path()}),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    assert told["crowd"] == ["done"]
    assert told["most"] == 5
    assert told["pause"] < 1.0
    assert told["refused"] == ["full", "done"]
    assert 0.5 <= told["waited"] < 1.5
    assert told["late"] == "full"
    assert told["freed"] < 1.0
    assert told["long"] == ["done"] * 4
