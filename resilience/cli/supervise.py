"""Runs several programs in one terminal, and keeps them running until it is told to stop.

supervisor (supervisord.org) starts, restarts and stops them. It runs in this process, so that its
events can be used for three things that its configuration cannot say: every line of output gets
the name of its program, the pause between failing starts doubles up to a limit and never becomes
giving up, and nothing that a program forked outlives it.
"""

import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any

from supervisor import events, loggers  # type: ignore[import-untyped]
from supervisor.medusa.asyncore_25 import ExitNow  # type: ignore[import-untyped]
from supervisor.options import ServerOptions  # type: ignore[import-untyped]
from supervisor.states import SupervisorStates  # type: ignore[import-untyped]
from supervisor.supervisord import Supervisor  # type: ignore[import-untyped]

from resilience.cli.program import Program
from resilience.cli.terminal import Terminal, TerminalHandler
from resilience.errors import ConfigurationError

STABLE_SECONDS = 10
BACKOFF_MAX_SECONDS = 30
SUPERVISOR_NAME = "supervisor"
SIGNALS = [
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGUSR2,
]


def supervise(programs: Sequence[Program]) -> int:
    """Run *programs* until SIGINT, SIGTERM, SIGQUIT or SIGHUP, then stop them.

    A program that ends, for whatever reason, is started again: at once if it had run for 10 s, else
    after 1, 2, 4, … and at most 30 seconds. What it forked and left behind is killed. Signals are
    noticed within a second.

    Must be called in the main thread, of a process that has no other children: it waits for all.

    Returns:
        An exit code: 0 after a stop that was asked for, 1 if it stopped because standard output
        was closed.

    Raises:
        ConfigurationError: There are no programs, or two of the same name.
    """
    _check_names(programs)
    width = max(len(name) for name in (SUPERVISOR_NAME, *(program.name for program in programs)))
    terminal = Terminal(sys.stdout.fileno(), name_width=width)
    supervisor = _TerminalSupervisor(_options(programs, terminal), terminal)
    with _restored_signals():
        try:
            with suppress(ExitNow):
                supervisor.run()
        finally:
            supervisor.kill_all()
            events.clear()
    return int(terminal.lost)


def _check_names(programs: Sequence[Program]) -> None:
    if not programs:
        msg = "there is no program to run"
        raise ConfigurationError(msg)
    [(name, times)] = Counter(program.name for program in programs).most_common(1)
    if times > 1:
        msg = f"{times} programs are called {name!r}; names must be unique"
        raise ConfigurationError(msg)


@contextmanager
def _restored_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Options(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    # What supervisord sets when it is started as a command.
    first = True
    test = False

    def write_pidfile(self) -> None:
        """Write none: the process is in the foreground, and leaves no files behind."""


def _options(programs: Sequence[Program], terminal: Terminal) -> _Options:
    options = _Options()
    options.configfile = StringIO(configuration(programs))
    options.realize([])
    options.logger = loggers.Logger(
        loggers.LevelsByName.INFO, [TerminalHandler(terminal, SUPERVISOR_NAME)]
    )
    by_name = {program.name: program for program in programs}
    for group in options.process_group_configs:
        for process in group.process_configs:
            program = by_name[process.name]
            # Not through the file: its syntax has no way to write `%`, ` ;`, ` #` or a quote.
            process.command = shlex.join(program.command)
            process.environment = {"PYTHONUNBUFFERED": "1", **program.environment}
            process.stopwaitsecs = program.stop_seconds
            # Nothing that is to run all the time may end, so no exit code is expected.
            process.exitcodes = []
    return options


def longer_pause(seconds: int) -> int:
    """Return how long to wait before the next start, after *seconds* before the last one."""
    return min(2 * seconds, BACKOFF_MAX_SECONDS)


def configuration(programs: Sequence[Program]) -> str:
    """Return what supervisord.conf says about *programs*; their commands are set afterwards."""
    stages: dict[int, list[str]] = {}
    for program in programs:
        stages.setdefault(program.stage, []).append(program.name)
    lines = ["[supervisord]", "nodaemon = true"]
    for name in (name for names in stages.values() for name in names):
        lines += [
            f"[program:{name}]",
            "command = set-later",
            "autorestart = true",
            f"startsecs = {STABLE_SECONDS}",
            f"startretries = {BACKOFF_MAX_SECONDS}",
            "killasgroup = true",
            "redirect_stderr = true",
            "stdout_logfile = NONE",
            "stdout_events_enabled = true",
        ]
    for stage, names in stages.items():
        lines += [f"[group:stage-{stage}]", f"programs = {','.join(names)}", f"priority = {stage}"]
    return "\n".join(lines)


class _TerminalSupervisor(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """Supervisor with a terminal for all output, and with restarts that never end."""

    def __init__(self, options: _Options, terminal: Terminal) -> None:
        super().__init__(options)
        self._terminal = terminal

    def runforever(self) -> None:
        """Listen to the programs until a stop is requested and all of them have ended."""
        events.subscribe(events.ProcessLogStdoutEvent, self._on_output)
        events.subscribe(events.ProcessStateBackoffEvent, self._on_end)
        events.subscribe(events.ProcessStateBackoffEvent, self._on_backoff)
        events.subscribe(events.ProcessStateExitedEvent, self._on_end)
        events.subscribe(events.ProcessStateStoppedEvent, self._on_end)
        super().runforever()

    def handle_signal(self) -> None:
        """Stop also when nobody can see the output any more, as a closed pipe ends `ls`."""
        super().handle_signal()
        if self._terminal.lost:
            self.options.mood = SupervisorStates.SHUTDOWN

    def kill_all(self) -> None:
        """Kill the groups of the programs that still run; after an orderly stop there are none."""
        for group in self.process_groups.values():
            for process in group.processes.values():
                _kill_group(process)

    def _on_output(self, event: Any) -> None:  # noqa: ANN401 - supervisor has no types
        self._terminal.feed(event.process.config.name, event.data)

    def _on_end(self, event: Any) -> None:  # noqa: ANN401 - supervisor has no types
        self._terminal.finish(event.process.config.name)
        _kill_group(event.process)

    def _on_backoff(self, event: Any) -> None:  # noqa: ANN401 - supervisor has no types
        process = event.process
        words = {"name": process.config.name, "seconds": process.backoff}
        self.options.logger.info("backoff: %(name)s starts again in %(seconds)s s", **words)
        # supervisor adds one for the next pause, and gives up when it exceeds `startretries`.
        process.backoff = longer_pause(process.backoff) - 1


def _kill_group(process: Any) -> None:  # noqa: ANN401 - supervisor has no types
    # The pid is 0 if it never started, and group 0 would be our own.
    if process.pid:
        # Nobody left, or (macOS) nobody but zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
