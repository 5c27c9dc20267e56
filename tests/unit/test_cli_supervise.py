"""Programs in one terminal: real processes, without a broker."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import ValidationError

from resilience.cli.program import Program
from resilience.cli.supervise import configuration, longer_pause, supervise
from resilience.errors import ConfigurationError
from resilience.testing.process import import_path, inherited_env, is_alive
from resilience.testing.waiting import wait_until
from tests.foreground import SECONDS, Foreground, foreground, supervising

BACKOFF_MAX_SECONDS = 30

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WAIT = "import signal; print('up'); signal.pause()"
IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
CHILD = "import subprocess; child = subprocess.Popen(['sleep', '600']); print('child', child.pid)"
LOCK = "import fcntl, os; lock = open(os.environ['LOCK'], 'w')"
HOLD = "fcntl.flock(lock, fcntl.LOCK_EX)"

EMBEDDED = """
import signal
import sys
from resilience.cli.program import Program
from resilience.cli.supervise import SIGNALS, supervise

def own(*_):
    pass

for number in SIGNALS:
    signal.signal(number, own)
stop = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
assert supervise([Program("stops", [sys.executable, "-c", stop])]) == 0
print("not restored:", [number.name for number in SIGNALS if signal.getsignal(number) is not own])
"""


class Run(Protocol):
    """Runs programs for the length of a `with` block."""

    def __call__(self, *programs: Mapping[str, Any]) -> AbstractContextManager[Foreground]:
        """Start them under `supervise`."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs programs in a process of their own; kills all of it in the end."""
    return lambda *programs: foreground(supervising(programs), tmp_path)


def python(name: str, *statements: str, **options: object) -> dict[str, Any]:
    """Return the arguments of a `Program` that runs Python code."""
    return {"name": name, "command": [sys.executable, "-c", "\n".join(statements)], **options}


def child_of(running: Foreground, name: str) -> int:
    """Return the id that the program called *name* printed last for its child."""
    (*_, line) = [line for line in running.lines if line.startswith(f"{name} | child ")]
    return int(line.rpartition(" ")[2])


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_all_programs_stop_when_asked(run: Run, number: int) -> None:
    """Every way to ask for a stop ends all programs, and the exit code is 0."""
    with run(python("first", WAIT), python("second", WAIT)) as running:
        running.wait_for("first | up")
        running.wait_for("second | up")

        running.signal(number)

        assert running.wait() == 0
        assert not running.family()


def test_nothing_is_left_when_a_program_ignores_the_stop(run: Run) -> None:
    """After stop_seconds the program and what it started are killed, and the exit code is 0."""
    with run(python("stubborn", IGNORE, CHILD, WAIT, stop_seconds=0.5)) as running:
        running.wait_for("stubborn | up")
        assert child_of(running, "stubborn") in running.family()

        running.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert not running.family()


def test_each_program_is_killed_after_its_own_stop_seconds(run: Run, tmp_path: Path) -> None:
    """One that has time sees the end of one that has none left, both told to stop at once."""
    # It ends a second after the other: not if both are killed at the same time.
    after = f"{HOLD}, time.sleep(1), print('outlived'), sys.exit()"
    outlive = f"signal.signal(signal.SIGTERM, lambda *_: ({after}))"
    lock = {"LOCK": str(tmp_path / "lock")}
    hasty = python("hasty", LOCK, HOLD, IGNORE, WAIT, stop_seconds=0.5, environment=lock)
    patient = python(
        *("patient", LOCK, "import signal, sys, time", outlive, WAIT),
        stop_seconds=600,
        environment=lock,
    )
    with run(hasty, patient) as running:
        running.wait_for("hasty | up")
        running.wait_for("patient | up")

        running.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert "patient | outlived" in running.lines
        assert "supervisor | stopped: hasty (terminated by SIGKILL)" in running.lines


def test_program_may_finish_its_work_when_stopped(run: Run) -> None:
    """SIGTERM reaches the program, and its last words are shown."""
    code = "signal.signal(signal.SIGTERM, lambda *_: (print('done'), sys.exit()))"
    with run(python("polite", "import signal, sys", code, WAIT)) as running:
        running.wait_for("polite | up")
        running.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert "polite | done" in running.lines
        assert "supervisor | stopped: polite (exit status 0)" in running.lines


def test_killed_program_comes_back_without_its_orphans(run: Run) -> None:
    """A program that was killed is started again, and what it left behind is killed."""
    with run(python("worker", CHILD, "import os; print('pid', os.getpid())", WAIT)) as running:
        running.wait_for("worker | up")
        orphan = child_of(running, "worker")
        (pid,) = (int(line.split()[-1]) for line in running.lines if "| pid" in line)

        os.kill(pid, signal.SIGKILL)

        wait_until(lambda: child_of(running, "worker") != orphan, SECONDS, "it was started again")
        assert not is_alive(orphan)
        assert "supervisor | exited: worker (terminated by SIGKILL; not expected)" in running.lines


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(python("failing", "raise SystemExit(3)"), id="exits"),
        pytest.param(python("failing", "raise SystemExit(0)"), id="exits-in-peace"),
        pytest.param({"name": "failing", "command": ["no-such-program"]}, id="is-not-there"),
    ],
)
def test_failing_program_backs_off_and_harms_no_other(run: Run, failing: dict[str, Any]) -> None:
    """Starts that fail come at growing intervals, while the others run on; then all can stop."""
    with run(python("good", WAIT), failing) as running:
        running.wait_for("good | up")
        running.wait_for("backoff: failing starts again in 1 s")
        running.wait_for("backoff: failing starts again in 2 s")
        assert running.lines.count("good | up") == 1

        running.signal(signal.SIGTERM)

        assert running.wait() == 0
        assert not running.family()


def test_pauses_double_up_to_the_limit_and_starts_never_end() -> None:
    """The pause grows to its limit and stays there; supervisor gives up beyond it, so never."""
    pauses = [1]
    while len(pauses) < 50:
        pauses.append(longer_pause(pauses[-1]))

    assert pauses[:6] == [1, 2, 4, 8, 16, BACKOFF_MAX_SECONDS]
    assert set(pauses[6:]) == {BACKOFF_MAX_SECONDS}
    assert all(shorter <= longer for shorter, longer in pairwise(pauses))
    text = configuration([Program("any", ["true"])])
    assert f"startretries = {BACKOFF_MAX_SECONDS}" in text.splitlines()


def test_lower_stage_outlives_the_higher_one(run: Run) -> None:
    """A server of stage 0 is stopped only after its client of stage 1 has gone."""
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))"
    client = python("client", "import signal, sys, time", slow, WAIT, stage=1)
    with run(client, python("server", WAIT)) as running:
        running.wait_for("client | up")
        running.wait_for("server | up")

        running.signal(signal.SIGTERM)

        assert running.wait() == 0
    stopped = [line for line in running.lines if line.startswith("supervisor | stopped: ")]
    assert [line.split()[3] for line in stopped] == ["client", "server"]


def test_command_and_environment_arrive_as_written(run: Run) -> None:
    """No character means anything on the way: quotes, percent signs, semicolons, hashes, spaces."""
    odd = "a 'b' \"c\" %d %(here)s ;e #f \\g $h"
    show = "import os, sys; print(sys.argv[1] == os.environ['ODD'], sys.argv[1]); import signal"
    program = python("odd", show, WAIT, environment={"ODD": odd})
    program["command"] = [*program["command"], odd]
    with run(program) as running:
        running.wait_for("odd | up")

        assert f"odd | True {odd}" in running.lines


def test_output_that_is_not_read_any_more_ends_it(tmp_path: Path) -> None:
    """Like any command in a pipe it ends when its reader does: exit code 1, nothing left."""
    chatty = python("chatty", "import time", "while True: print('still here'); time.sleep(0.1)")
    process = subprocess.Popen(  # noqa: S603 - tests start what they name
        supervising([chatty]), stdout=subprocess.PIPE, start_new_session=True
    )
    running = Foreground(process, tmp_path)
    assert process.stdout is not None
    try:
        with process.stdout as pipe:
            assert all(pipe.readline() for _ in range(3))

        assert running.wait() == 1
        assert not running.family()
    finally:
        running.kill()


def test_caller_has_its_signals_back_afterwards() -> None:
    """A process that supervises and then goes on reacts to every signal as before."""
    done = subprocess.run(  # noqa: S603 - tests start what they name
        [sys.executable, "-c", EMBEDDED],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "not restored: []"


@pytest.mark.parametrize(
    ("programs", "complaint"),
    [
        pytest.param([], "there is no program", id="none"),
        pytest.param([Program("a", ["x"]), Program("a", ["y"])], "are called 'a'", id="same-name"),
    ],
)
def test_programs_that_cannot_be_told_apart_are_refused(
    programs: Sequence[Program], complaint: str
) -> None:
    """Nothing is started if the names are not unique, or if there is nothing to start."""
    with pytest.raises(ConfigurationError, match=complaint):
        supervise(programs)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"name": "Not Plain"}, id="name"),
        pytest.param({"command": []}, id="no-command"),
        pytest.param({"command": "a string"}, id="string"),
        pytest.param({"stop_seconds": -1.0}, id="negative-seconds"),
        pytest.param({"stage": -1}, id="negative-stage"),
        pytest.param({"grace": 1.0}, id="unknown-option"),
    ],
)
def test_nonsense_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """A value out of range and an unknown option are errors of the declaration."""
    with pytest.raises(ValidationError):
        Program(**{"name": "plain", "command": ["true"], **options})
