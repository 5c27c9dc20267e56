"""Ports for servers: nobody gets one that another has got and not used yet."""

import subprocess
import sys

import pytest

from resilience.testing import ports
from resilience.testing.process import import_path, inherited_env

FEW = range(20_000, 20_060)
ASK = """
from resilience.testing import ports
ports.PORTS = range(20_000, 20_060)
ports.ATTEMPTS = 5000
try:
    while True:
        print(ports.free_port())
except OSError:
    pass
"""


def test_port_is_given_once_until_many_others_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to other processes: a server takes a moment until it listens."""
    monkeypatch.setattr(ports, "PORTS", FEW)
    monkeypatch.setattr(ports, "ATTEMPTS", 5000)
    mine = [ports.free_port() for _ in range(40)]
    assert len({*mine}) == 40
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", ASK],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    theirs = [int(line) for line in done.stdout.split()]
    assert 0 < len(theirs) <= 20
    assert not {*theirs} & {*mine}
