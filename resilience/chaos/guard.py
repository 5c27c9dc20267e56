"""Keeps a fault in force while its stop conditions allow it, and ends it whatever happens."""

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.faults import Fault
from resilience.levels import Level
from resilience.monitor.objective import Counts, Objective, counts_until
from resilience.tasks.resilience import Resilience

LOOK_SECONDS = 1.0
"""How often the stop conditions are looked at."""
LEASE_SECONDS = 10.0
"""A fault lasts so much longer than a guard that was killed."""
COMMAND_SECONDS = 10.0
"""A stop command that takes longer counts as one that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConditions:
    """When a fault ends early.

    Attributes:
        level: When the level of the app is this or worse.
        burn_rate: When an objective of the app burns its error budget at this rate or faster,
            counted from the moment at which the fault was set. Needs a listener with objectives.
        command: When this shell command, run once a second, does not exit with 0.
    """

    level: Level | None = None
    burn_rate: float | None = None
    command: str | None = None


def run_guarded(
    app: Resilience,
    fault: Fault,
    *,
    seconds: float,
    actor: str,
    reason: str,
    stop: StopConditions | None = None,
    name: str | None = None,
    ended: threading.Event | None = None,
    on_look: Callable[[float], None] = lambda _left: None,
) -> str:
    """Keep *fault* in force for *seconds*, or until a stop condition holds; return why it ended.

    The fault is a lease of ten seconds that this function renews: it ends by itself if this process
    is killed, or loses the store.

    Args:
        app: Whose dependency the fault is for.
        fault: What happens.
        seconds: How long, more than 0.
        actor: Who orders it.
        reason: Why.
        stop: When it ends early.
        name: Of the fault; None: one is made.
        ended: Ends the fault when it is set.
        on_look: Called about once a second with the seconds that are left.

    Raises:
        ConfigurationError: As `Faults.set`; or a burn rate is to stop it, and the app has no
            objectives.
        OrderConflictError: Faults are stopped, or too many are in force.
        StoreUnavailableError: The fault did not reach the fleet.
    """
    stop, ended = stop or StopConditions(), ended or threading.Event()
    objectives = [each for one in app.listeners for each in getattr(one, "objectives", ())]
    if stop.burn_rate is not None and not objectives:
        msg = "a burn rate is to stop the fault, but the app has no PrometheusListener(objectives)"
        raise ConfigurationError(msg)
    before = counts_until(app, [])[0] if stop.burn_rate is not None else {}
    end = app.fleet_time() + seconds
    faults = app.faults
    lease = min(seconds, LEASE_SECONDS)
    name = faults.set(fault, actor=actor, reason=reason, seconds=lease, name=name).name
    why = "its guard failed"
    try:
        while True:
            left = end - app.fleet_time()
            why = _why_to_stop(app, stop, objectives, before) if left > 0 else "its time was over"
            if ended.is_set():
                why = "somebody ended its guard"
            if why:
                return why
            on_look(left)
            if not _renew(app, name, min(left, LEASE_SECONDS)):
                why = "somebody cleared it, or stopped all faults"
                return why
            ended.wait(min(left, LOOK_SECONDS))
    finally:
        faults.clear(name, actor=actor, reason=why)


def _renew(app: Resilience, name: str, seconds: float) -> bool:
    try:
        return app.faults.renew(name, seconds)
    except StoreUnavailableError:
        return True  # it ends by itself if that lasts


def _why_to_stop(
    app: Resilience, stop: StopConditions, objectives: list[Objective], before: Counts
) -> str:
    """Return the stop condition that holds; empty if none does."""
    app.pulse.refresh()
    if stop.level is not None and app.level >= stop.level:
        reasons = "; ".join(f"{one.name}: {one.why}" for one in app.degradation.reasons)
        return f"the level is {app.level.name} ({reasons})"
    if stop.burn_rate is not None:
        now = counts_until(app, [])[0]
        for objective in objectives:
            rate = objective.burn_rate(objective.levels(now, before))
            if rate >= stop.burn_rate:
                return f"{objective.name} burns its error budget at {rate:.3g} times the rate"
    if stop.command is not None:
        return _failure_of(stop.command)
    return ""


def _failure_of(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S602 - the operator's own command, on the operator's machine
            command,
            shell=True,  # nosec B602
            check=False,
            timeout=COMMAND_SECONDS,
            capture_output=True,
        )
    except subprocess.TimeoutExpired:
        return f"the stop command {command!r} took longer than {COMMAND_SECONDS:g} s"
    return f"the stop command {command!r} ended with {done.returncode}" if done.returncode else ""
