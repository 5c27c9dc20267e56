"""`celery -A app resilience fault`: inject faults into calls of a dependency, and end them."""

import signal
import threading
from typing import Any, get_args

import click

from resilience.chaos.guard import StopConditions, run_guarded
from resilience.cli.breakers import ACTOR, REASON
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import above_zero, duration, moment, say
from resilience.errors import ConfigurationError
from resilience.faults import Fault, Kind
from resilience.flags.faults import STOP_SECONDS
from resilience.levels import Level
from resilience.monitor.rows import connected
from resilience.tasks.resilience import Resilience

COLUMNS = (
    "name",
    "dependency",
    "kind",
    "what",
    "rate",
    "share",
    "since",
    "until",
    "actor",
    "reason",
)
FOR = click.option("--for", "seconds", type=duration, default="5m", show_default=True)
WHAT = (
    click.option("--rate", type=float, default=1.0, show_default=True, help="Share of the calls."),
    click.option("--delay", "delay_seconds", type=duration, default="0s", help="For latency."),
    click.option(
        "--distribution",
        type=click.Choice(["fixed", "uniform", "exponential"]),
        default="fixed",
        show_default=True,
        help="Of the delays; --delay is their mean.",
    ),
    click.option("--error", default="", help="Exception to raise, such as httpx.ReadTimeout."),
    click.option("--seed", type=int, help="Makes each process's draws repeatable."),
    click.option(
        "--share", type=float, default=1.0, show_default=True, help="Share of the workers."
    ),
)
STOP = (
    click.option(
        "--stop-at-level",
        "level",
        type=click.Choice([one.name.lower() for one in Level][1:]),
        help="End the fault when the level of the app is this or worse.",
    ),
    click.option(
        "--stop-at-burn-rate",
        "burn_rate",
        type=above_zero,
        help="End it when an objective burns its error budget so fast.",
    ),
    click.option(
        "--stop-command", "command", help="Run once a second; end it when this does not exit 0."
    ),
)


@click.group()
def fault() -> None:
    """Inject faults into calls of a dependency, to see what degrades.

    Processes inject faults only where RESILIENCE_CHAOS=1.
    """


@fault.command("set")
@click.argument("dependency")
@click.argument("kind", type=click.Choice(get_args(Kind)))
@all_of((*WHAT, FOR, *STOP))
@click.option("--detach", is_flag=True, help="Return at once; the fault ends after --for.")
@ACTOR
@REASON
@click.pass_context
def set_fault(
    context: click.Context,
    /,
    *,
    seconds: float,
    detach: bool,
    level: str | None,
    burn_rate: float | None,
    command: str | None,
    actor: str,
    reason: str,
    **what: Any,  # noqa: ANN401 - as the options say
) -> None:
    """Inject a fault into calls of DEPENDENCY for --for, in the whole fleet.

    The command keeps the fault in force until --for is over, a stop condition holds, or Ctrl-C.
    If the command is killed, the fault ends ten seconds later.
    """
    adopted = connected(Resilience.of(context.obj.app))
    found = _fault(**what)
    if detach:
        if level or burn_rate or command:
            msg = "Stop conditions need the command to go on; leave out --detach."
            raise click.UsageError(msg)
        made = adopted.faults.set(found, actor=actor, reason=reason, seconds=seconds)
        say(f"{found.dependency}: {found.kind} until {moment(made.until)}")
        return
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    stop = StopConditions(
        level=Level[level.upper()] if level else None, burn_rate=burn_rate, command=command
    )
    say(f"{found.dependency}: {found.kind} for at most {seconds:g} s; Ctrl-C ends it")
    why = run_guarded(
        adopted, found, seconds=seconds, actor=actor, reason=reason, stop=stop, ended=ended
    )
    say(f"{found.dependency}: {found.kind} ended, as {why}")


def _fault(**what: Any) -> Fault:  # noqa: ANN401 - as the options say
    try:
        return Fault(**what)
    except ValueError as error:
        details: list[Any] = getattr(error, "errors", list)()
        texts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in details]
        raise ConfigurationError("; ".join(texts) or str(error)) from error


@fault.command("list")
@JSON
@click.pass_context
def list_faults(context: click.Context, *, as_json: bool) -> None:
    """List the faults in force: what they do, since when, until when, who and why."""
    adopted = connected(Resilience.of(context.obj.app))
    rows = []
    for one in adopted.faults.ordered().values():
        what = f"{one.delay_seconds:g} s {one.distribution}" if one.delay_seconds else one.error
        rows.append({**one.model_dump(exclude={"at"}), "what": what, "since": one.at})
    print_rows(rows, COLUMNS, as_json=as_json, whole=COLUMNS[:1])
    if (stop := adopted.faults.stop()) is not None:
        text = f"{stop.actor} has stopped all faults until {moment(stop.until)}: {stop.reason}"
        say(text, err=True)


@fault.command()
@click.argument("name")
@ACTOR
@click.option("--reason", default="cleared by hand", show_default=True)
@click.pass_context
def clear(context: click.Context, name: str, actor: str, reason: str) -> None:
    """End the fault called NAME in the whole fleet."""
    faults = connected(Resilience.of(context.obj.app)).faults
    was = faults.clear(name, actor=actor, reason=reason)
    say(f"{name}: cleared" if was else f"{name}: was not in force")


@fault.command("stop-all")
@click.option(
    "--for", "seconds", type=duration, default=f"{STOP_SECONDS / 3600:g}h", show_default=True
)
@ACTOR
@click.option("--reason", default="stopped by hand", show_default=True)
@click.pass_context
def stop_all(context: click.Context, seconds: float, actor: str, reason: str) -> None:
    """End all faults in the whole fleet, and refuse new ones for --for."""
    faults = connected(Resilience.of(context.obj.app)).faults
    ended = faults.stop_all(actor=actor, reason=reason, seconds=seconds)
    say(f"ended: {', '.join(ended) or 'none was in force'}; new ones are refused")


@fault.command()
@ACTOR
@click.option("--reason", default="allowed by hand", show_default=True)
@click.pass_context
def allow(context: click.Context, actor: str, reason: str) -> None:
    """Accept new faults again after `stop-all`."""
    was = connected(Resilience.of(context.obj.app)).faults.allow(actor=actor, reason=reason)
    say("faults are accepted" if was else "faults were not stopped")
