"""`celery -A app resilience prove`: make calls under every fault, and judge each answer."""

import json
import logging
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from resilience.chaos.proving import report
from resilience.chaos.proving.call import Call, named
from resilience.chaos.proving.plan import KINDS
from resilience.chaos.proving.prove import PATIENCE_SECONDS, Stage
from resilience.chaos.proving.prove import prove as prove_calls
from resilience.chaos.proving.records import FILE, Recorder, Records
from resilience.cli.commandline import celery_command
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import duration, say, say_json
from resilience.cli.workers import worker_programs
from resilience.declared import check_known
from resilience.errors import ConfigurationError
from resilience.tasks.resilience import Resilience
from resilience.text import hide_in_text

IN_WORKER: Final = "resilience.chaos.proving.in_worker"
WORKER_OPTIONS: Final = ("--without-gossip", "--without-mingle", "-l", "WARNING")
CALL_OPTIONS: Final = ("args", "kwargs", "budget")
BROKEN: Final = 1


def _json(_: click.Context, parameter: click.Parameter, text: str) -> Any:  # noqa: ANN401 - any
    """Return the list or object that *text* says."""
    kind: type[Any] = list if parameter.name == "args" else dict
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        msg = f"{text!r} is no {kind.__name__} of JSON; write '{kind()}', quoted for the shell."
        raise click.BadParameter(msg)
    return value


class _Again(click.Command):
    """A command that can be run again, as it remembers its arguments."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Parse *arguments*, and remember them."""
        context.meta[__name__] = list(arguments)
        return super().parse_args(context, arguments)


OPTIONS: Final = (
    click.option("--args", default="[]", callback=_json, help="Of a task, as JSON: '[7]'."),
    click.option("--kwargs", default="{}", callback=_json, help="The same by name: '{}'."),
    click.option("--budget", type=duration, help="Time for the answer, such as 2s."),
    click.option("--calls", metavar="MODULE:NAME", help="A mapping of names to calls."),
    click.option("--all", "every", is_flag=True, help="All calls of --calls."),
    click.option("--pairs", is_flag=True, help="Also every pair of faults that can meet."),
    click.option("--kinds", metavar="KIND,…", help=f"Only some of {', '.join(KINDS)}."),
    click.option(
        "--patience",
        type=duration,
        default=f"{PATIENCE_SECONDS:g}s",
        show_default=True,
        help="Wait for an answer that nothing limits.",
    ),
    click.option("--markdown", is_flag=True, help="Print the table in Markdown."),
    click.option(
        "--baseline",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with a table in Markdown; a level or source that differs from it is an error.",
    ),
    click.option("--stage", hidden=True, type=click.Path(path_type=Path)),
)


@click.command(cls=_Again)
@click.argument("targets", nargs=-1, metavar="[TASK | MODULE:FANOUT | CALL …]")
@JSON
@all_of(OPTIONS)
@click.pass_context
def prove(
    context: click.Context,
    /,
    targets: Sequence[str],
    stage: Path | None,
    **options: Any,  # noqa: ANN401 - as the options say
) -> None:
    """Make calls under every fault of every dependency that they call, and judge each answer.

    A task, a fan-out, or with --calls some calls by name. They run on a throw-away broker, store
    and ledger, with workers of their own; what the dependencies are, the environment says. The
    calls are real: what they do to your dependencies, they do many times.

    Exit code 0: every promise holds; 1: one is broken, or a row differs from the baseline; 2: the
    command or the app is wrong.
    """
    if stage is None:
        context.exit(_on_stage(context))
    from resilience.testing.throwaway import Workers  # noqa: PLC0415 - psutil is an extra

    adopted = Resilience.of(context.obj.app)
    _check_stage(adopted, stage)
    adopted.app.set_default()
    adopted.app.loader.import_default_modules()
    kinds = options["kinds"].split(",") if options["kinds"] else KINDS
    for kind in kinds:
        check_known(kind, KINDS, "No kind of fault is called")
    calls = _calls(adopted, targets, options)
    programs = worker_programs(adopted, celery_command(context), WORKER_OPTIONS)
    commands = {name: program.command for name, program in programs.items()}
    Recorder(adopted.app, stage / FILE)
    # What the faults lead to is in the table; here it would only hide the progress.
    logging.getLogger("resilience").setLevel(logging.CRITICAL)
    with Workers(commands, stage, include=[IN_WORKER]) as workers:
        proof = prove_calls(
            Stage(
                adopted=adopted,
                fleet=workers,
                records=Records(stage / FILE),
                kinds=kinds,
                patience=options["patience"],
                report=lambda text: say(text, err=True),
            ),
            calls,
            pairs=options["pairs"],
        )
    context.exit(_show(proof, options, whole=len(kinds) == len(KINDS)))


def _on_stage(context: click.Context) -> int:
    """Run this command again on a stage of its own, where the app finds nothing of the real one."""
    from resilience.testing.process import inherited_env  # noqa: PLC0415 - psutil is an extra
    from resilience.testing.throwaway import (  # noqa: PLC0415 - as above
        environment,
        running_server,
        swept,
    )

    directory = Path(tempfile.mkdtemp(prefix="resilience-prove-"))
    with swept(directory), running_server(directory) as url:
        command = [*celery_command(context), "resilience", "prove", "--stage", str(directory)]
        env = inherited_env(environment(url, directory))
        again = [*command, *context.meta[__name__]]
        return subprocess.run(again, env=env, check=False).returncode  # noqa: S603 - this command


def _check_stage(adopted: Resilience, stage: Path) -> None:
    """Check that the app is on the stage: a proof must never touch the real broker.

    Raises:
        ConfigurationError: The app does not read its settings from the environment.
    """
    settings, conf = adopted.settings, adopted.app.conf
    on_stage = settings.runtime_directory == stage and settings.chaos
    if not on_stage or conf.broker_url != settings.store_url:
        msg = (
            "the app does not read its settings from the environment, so it would not be proved "
            f"on a throw-away broker: broker_url is {hide_in_text(str(conf.broker_url))!r}, "
            f"chaos is {settings.chaos}; leave out settings=… of Resilience while it is proved"
        )
        raise ConfigurationError(msg)


def _calls(
    adopted: Resilience, targets: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Call]:
    """Return the calls that the user named.

    Raises:
        ConfigurationError: A name is unknown, or stands for nothing that can be called.
        click.UsageError: No call is named.
    """
    if options["calls"] is not None:
        known = named(options["calls"])
        if not isinstance(known, Mapping):
            msg = f"{options['calls']} is no mapping of names to calls, but {known!r}"
            raise ConfigurationError(msg)
        if not (targets or options["every"]):
            msg = f"Name calls, or say --all; there are: {', '.join(known)}."
            raise click.UsageError(msg)
        for name in targets:
            check_known(name, known, f"{options['calls']} has no call")
        return {name: _as_call(known[name]) for name in targets or known}
    if len(targets) != 1:
        msg = "Name one task or fan-out; or several calls of --calls MODULE:NAME, or --all."
        raise click.UsageError(msg)
    [target] = targets
    if ":" not in target:
        check_known(target, adopted.app.tasks, "No task is called")
    found = named(target) if ":" in target else adopted.app.tasks[target]
    return {target: _as_call(found, **{name: options[name] for name in CALL_OPTIONS})}


def _as_call(found: Any, **given: Any) -> Call:  # noqa: ANN401 - whatever the user named
    return found if isinstance(found, Call) else Call(found, **given)


def _show(proof: report.Proof, options: Mapping[str, Any], *, whole: bool) -> int:
    """Print *proof*, and return the exit code."""
    wrong = list(proof.broken)
    if options["baseline"] is not None:
        try:
            text = options["baseline"].read_text(encoding="utf-8")
            wrong += report.changes(proof.rows, text, whole=whole and options["every"])
        except ValueError as error:
            msg = f"--baseline {options['baseline']}: {error}"
            raise ConfigurationError(msg) from error
    rows = [asdict(row) for row in proof.rows]
    if options["as_json"]:
        figures = {"pruned": proof.pruned, "seconds": round(proof.seconds, 1)}
        say_json({"rows": rows, "wrong": wrong, **figures})
    elif options["markdown"] or find_spec("rich") is None:
        say(report.markdown(proof.rows), nl=False)
    else:
        shown = [{**row, "seconds": f"{row['seconds']:.2f}"} for row in rows]
        print_rows(shown, report.COLUMNS, as_json=False, whole=("seconds",))
    for sentence in wrong:
        say(f"wrong: {sentence}", err=True)
    runs = f"{len(rows)} runs, {proof.pruned} pairs left out, {proof.seconds:.0f} s"
    say(f"{runs}: {len(wrong)} wrong" if wrong else f"{runs}: every promise holds", err=True)
    return BROKEN if wrong else 0
