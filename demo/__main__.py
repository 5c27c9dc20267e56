"""`python -m demo`: a scripted outage with a verdict; `python -m demo up`: the shop itself."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Final

import click
from rich.console import Console

from demo.display import Display
from demo.isolation import isolation_checks, isolation_table
from demo.layout import HTTP_UPSTREAMS, Layout
from demo.reads import reads_checks, reads_table
from demo.runner import HOME, LOG, running_shop
from demo.sabotage import Sabotage
from demo.script import FULL_SCRIPT, QUICK_SCRIPT, Phase, Play, Recording, Script
from demo.shedding import shedding_checks, shedding_table
from demo.starting import Start, StartError
from demo.verdict import BROKEN, checks, conclude, endpoint_table

NOT_STARTED: Final = 2
INTERRUPTED: Final = 130
ENVIRONMENT: Final = HOME / "environment"
"""What a shell reads to run the commands of the shop that is up."""
WIDTH: Final = 120
"""Columns where there is no terminal to ask."""
SHOWN: Final = 4
"""How many of the programs that are not ready are named."""
MARKS: Final = {True: "[green]kept[/]  ", False: "[red]BROKEN[/]", None: "[yellow]open[/]  "}


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Less than a minute of traffic; no p99 is judged.")
@click.option(
    "--sabotage",
    type=click.Choice([one.value for one in Sabotage]),
    default=Sabotage.NONE.value,
    help="Run a shop that breaks its promises, to see the verdict find it.",
)
@click.option("--record", type=click.File("wb"), help="Write all that was measured, as JSON.")
@click.pass_context
def demo(context: click.Context, *, quick: bool, sabotage: str, record: IO[bytes] | None) -> None:
    """Break the shop by script, and judge what its users saw.

    Exit code 0: every promise was kept; 1: one was broken; 2: the shop did not start; 3: none was
    broken, but not all could be judged, as on a machine that is busy with other programs.
    """
    if context.invoked_subcommand is None:
        script = QUICK_SCRIPT if quick else FULL_SCRIPT
        layout_of = partial(
            Layout.anywhere, dwell_seconds=script.dwell_seconds, sabotage=Sabotage(sabotage)
        )
        context.exit(_run(lambda console: _outage(console, script, layout_of, record)))


@demo.command()
@click.pass_context
def up(context: click.Context) -> None:
    """Run the shop until Ctrl-C."""
    context.exit(_run(_stay_up))


def _run(body: Callable[[Console], int]) -> int:
    """Return the exit code of *body*, which may be interrupted at any time."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    try:
        return body(console)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return INTERRUPTED
    except StartError as error:
        console.print(f"[red]Not started:[/] {error}", soft_wrap=True)
        return NOT_STARTED


def _outage(
    console: Console,
    script: Script,
    layout_of: Callable[[Path], Layout],
    record: IO[bytes] | None,
) -> int:
    with running_shop(layout_of, console) as shop, Display(console) as display:
        shop.await_ready(lambda *seen: _show_start(display, *seen))
        play = Play(shop, script, lambda *seen: _show_phase(display, *seen))
        recording = asyncio.run(play.run())
    if record is not None:
        record.write(recording.to_json())
    return _judge(console, recording, quick=script is QUICK_SCRIPT)


def _stay_up(console: Console) -> int:
    with running_shop(Layout.pleasant, console) as shop:
        with Display(console) as display:
            shop.await_ready(lambda *seen: _show_start(display, *seen))
        ENVIRONMENT.write_text(shop.layout.exports())
        show_addresses(console, shop.layout)
        with suppress(KeyboardInterrupt):
            shop.wait()
            console.print(f"[red]The shop ended by itself.[/] Its log is {LOG}.")
            return BROKEN
    return 0


def _judge(console: Console, recording: Recording, *, quick: bool) -> int:
    console.print(endpoint_table(recording))
    console.print(shedding_table(recording))
    console.print(reads_table(recording))
    verdict = [*checks(recording), *shedding_checks(recording), *reads_checks(recording)]
    if not quick:  # else there are too few requests for a p99
        console.print(isolation_table(recording))
        verdict += isolation_checks(recording)
    for check in verdict:
        console.print(MARKS[check.kept], check.text, soft_wrap=True)
    code, text = conclude(verdict)
    console.print(f"{text} The log is {LOG}." if code == BROKEN else text)
    return code


def _show_start(display: Display, start: Start, seconds: float) -> None:
    missing = ", ".join(list(start.missing)[:SHOWN])
    more = f" and {len(start.missing) - SHOWN} more" if len(start.missing) > SHOWN else ""
    note = f"{start.ready} of {start.total} programs are ready after {seconds:.0f} s"
    display.show("starting", start.ready, start.total, f"{note}; not yet: {missing}{more}")


def _show_phase(display: Display, phase: Phase, seconds: float, answers: int) -> None:
    note = f"{seconds:3.0f} of {phase.seconds:g} s, {answers} answers"
    display.show(phase.name, seconds, phase.seconds, note)


def show_addresses(console: Console, layout: Layout) -> None:
    """Print where the shop answers, and how to break and repair what it depends on."""
    front = layout.url("front")
    console.print(
        f"""
The shop is up until Ctrl-C. Its log is {LOG}.

  [bold]Front[/]   {front}/recommendations/7 · /search?q=oak+chair · /profile/7 · /dashboard
          curl {front}/orders --json '{{"user_id": 7, "product_id": 9, "quantity": 1}}'
          curl '{front}/orders/ORDER_ID?user_id=7'
  [bold]Docs[/]    {front}/docs
  [bold]Flower[/]  {layout.url("flower")}
  [bold]Status[/]  . {ENVIRONMENT}    [dim]# in each shell, for docs/runbook.md[/]
          celery -A workers.app resilience status

Break a service (fail, slow, hang), kill the primary or stall its replication, and repair it:
""",
        soft_wrap=True,
    )
    modes = dict.fromkeys((*HTTP_UPSTREAMS, "mail", "replication"), "hang") | {"primary": "fail"}
    for name, mode in modes.items():
        broken = f"""curl -X PUT {layout.fault_url(name)} -d '{{"mode": "{mode}"}}'"""
        console.print(f"  {broken}   [dim]# {name}[/]", soft_wrap=True)
    console.print(f"  curl -X DELETE {layout.fault_url('mail')}", soft_wrap=True)


if __name__ == "__main__":
    demo(prog_name="python -m demo")
