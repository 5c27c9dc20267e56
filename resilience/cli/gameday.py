"""`celery -A app resilience gameday`: scheduled faults, and a verdict on the app's promises."""

import logging
import os
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from resilience.chaos.gameday.game import Game, Result
from resilience.chaos.gameday.plan import Plan, read_plan
from resilience.chaos.gameday.recording import record
from resilience.chaos.gameday.report import as_json, html
from resilience.chaos.proving.records import FILE, Records
from resilience.cli.commandline import celery_command
from resilience.cli.words import say, say_json
from resilience.cli.workers import worker_programs
from resilience.declared import check_known
from resilience.errors import ConfigurationError
from resilience.tasks.resilience import Resilience

IN_WORKER: Final = "resilience.chaos.gameday.in_worker"
WORKER_OPTIONS: Final = ("--without-gossip", "--without-mingle", "-l", "WARNING")
EXIT_CODES: Final = {"kept": 0, "broken": 1, "not judged": 3}
PREPARE_SECONDS: Final = 300.0
FILE_OPTION: Final = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("plan_file", metavar="PLAN", type=FILE_OPTION)
@click.option("--html", "html_file", type=FILE_OPTION, help="Write the report to this file.")
@click.option("--json", "as_text", is_flag=True, help="Print the result as JSON.")
@click.option("--stage", hidden=True, type=click.Path(path_type=Path))
@click.pass_context
def gameday(
    context: click.Context,
    plan_file: Path,
    html_file: Path | None,
    *,
    as_text: bool,
    stage: Path | None,
) -> None:
    """Break parts of the app on the schedule in PLAN, a TOML file, and judge the app's promises.

    The app runs with workers of its own on a throw-away broker, store and ledger. Its dependencies
    are those that the environment points to. The calls of the workload are real.

    Exit code 0: every promise was kept; 1: a promise was broken; 2: the plan or the app is wrong;
    3: the promises could not be judged.
    """
    plan = read_plan(plan_file)
    if html_file is not None and not html_file.absolute().parent.is_dir():
        msg = f"--html {html_file}: there is no directory {html_file.parent}; make it first"
        raise click.UsageError(msg)
    if stage is None:
        context.exit(_on_stage(context, plan))
    adopted = Resilience.of(context.obj.app)
    try:
        result = _play(context, adopted, plan, stage)
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - an unknown error does not show that a promise was broken
        traceback.print_exc()
        context.exit(EXIT_CODES["not judged"])
    _tell(result, as_json(plan, result), plan_file.name, html_file, as_text=as_text)
    context.exit(EXIT_CODES[result.verdict])


def _tell(
    result: Result, document: dict[str, Any], name: str, html_file: Path | None, *, as_text: bool
) -> None:
    """Print the result, and write the report."""
    if as_text:
        say_json(document)
    for sentence in result.broken:
        say(f"broken: {sentence}", err=True)
    for sentence in result.unjudged:
        say(f"not judged: {sentence}", err=True)
    counts = ", ".join(f"{len(jobs)} {name}" for name, jobs in document["jobs"].items())
    say(f"{len(result.requests)} requests; jobs: {counts}", err=True)
    say(f"verdict: {result.verdict}", err=True)
    if html_file is not None:
        try:
            html_file.write_text(html(name, document), encoding="utf-8")
        except OSError as error:
            say(f"the report cannot be written to {html_file}: {error.strerror}", err=True)
        else:
            say(f"report: {html_file}", err=True)


def _on_stage(context: click.Context, plan: Plan) -> int:
    """Run this command again in an environment that names only throw-away servers."""
    from resilience.testing.gameday import variables  # noqa: PLC0415 - psutil is an extra
    from resilience.testing.process import inherited_env  # noqa: PLC0415 - as above
    from resilience.testing.throwaway import swept  # noqa: PLC0415 - as above

    directory = Path(tempfile.mkdtemp(prefix="resilience-gameday-"))
    given = context.params
    words = [str(given["plan_file"]), "--stage", str(directory)]
    words += ["--json"] * given["as_text"]
    words += ["--html", str(given["html_file"])] if given["html_file"] else []
    command = [*celery_command(context), "resilience", "gameday", *words]
    with swept(directory):
        env = inherited_env(variables(plan, directory))
        try:
            return subprocess.run(command, env=env, check=False).returncode  # noqa: S603 - this command
        except KeyboardInterrupt:
            return EXIT_CODES["not judged"]


def _play(context: click.Context, adopted: Resilience, plan: Plan, stage: Path) -> Result:
    from resilience.testing.gameday import (  # noqa: PLC0415 - psutil is an extra
        GamedayStage,
        running_servers,
    )
    from resilience.testing.throwaway import Workers  # noqa: PLC0415 - as above

    env = dict(os.environ)  # noqa: TID251 - an entry point
    _check_stage(adopted, env, stage)
    adopted.app.set_default()
    adopted.app.loader.import_default_modules()
    # The report has the consequences of the faults; their log lines would only hide the progress.
    logging.getLogger("resilience").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    programs = worker_programs(adopted, celery_command(context), WORKER_OPTIONS)
    for fault in plan.faults:
        if fault.kind in {"kill-worker", "kill-child"}:
            check_known(fault.target, programs, "No worker is called")
    commands = {name: program.command for name, program in programs.items()}
    record(adopted.app)
    records = Records(stage / FILE)
    game = Game(plan, adopted, records, lambda text: say(text, err=True))
    with running_servers(env, stage) as servers:
        _prepare(plan.stage.prepare)
        with Workers(commands, stage, include=[IN_WORKER]) as workers:
            return game.play(GamedayStage(servers, workers))


def _prepare(command: Sequence[str]) -> None:
    """Run the user's own command, such as one that makes the tables.

    Raises:
        ConfigurationError: It cannot be run, fails, or takes too long.
    """
    if not command:
        return
    try:
        subprocess.run(command, check=True, timeout=PREPARE_SECONDS)  # noqa: S603 - the user's own
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"[stage], prepare = {list(command)}: {error}; correct the command"
        raise ConfigurationError(msg) from error


def _check_stage(adopted: Resilience, env: dict[str, str], stage: Path) -> None:
    """Check that the app is on the stage: a game day must never touch the real broker.

    Raises:
        ConfigurationError: The app does not read its settings from the environment.
    """
    settings, conf = adopted.settings, adopted.app.conf
    found = (conf.broker_url, settings.store_url, settings.runtime_directory, settings.chaos)
    if found != (env["CELERY_BROKER_URL"], env["RESILIENCE_STORE_URL"], stage, True):
        msg = (
            "the app does not read its settings from the environment, so it would not run on the "
            f"throw-away broker: broker_url is {conf.broker_url!r}; let the app read "
            "CELERY_BROKER_URL, and make Resilience without settings=… for the game day"
        )
        raise ConfigurationError(msg)
