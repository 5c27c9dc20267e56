"""`celery -A app resilience status`: what degrades now, why, and what to do next."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import click

from resilience.cli.rows import JSON
from resilience.cli.words import briefly, moment, say, say_json
from resilience.errors import ConfigurationError, text_of
from resilience.monitor.status import Verdict, app_command, look
from resilience.tasks.resilience import Resilience
from resilience.text import shown

WATCH_SECONDS = 2.0
SOURCES = {
    "breakers": "store",
    "holds": "store",
    "flags": "store",
    "queues": "broker",
    "dead letters": "ledger",
}
"""The source of each list of facts."""


class CannotTellError(click.UsageError):
    """The command is wrong, or the app is: nothing is known of how it does."""

    exit_code = Verdict.UNKNOWN


class _Status(click.Command):
    """Ends with 3 where other commands end with 2, which means `broken` here."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:  # noqa: ANN401 - click's
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise CannotTellError(error.format_message(), error.ctx) from error

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401 - click's
        try:
            return super().invoke(context)
        except ConfigurationError as error:
            raise CannotTellError(str(error)) from error


@click.command(cls=_Status)
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@JSON
@click.pass_context
def status(context: click.Context, *, watch: bool, as_json: bool) -> None:
    """Show the level of the app, the reasons, what waits, and what to do next.

    Shows the rest, and what is not known, while the store, the broker or the ledger is down. With
    --watch and --json each look is a line.

    The exit code is 0 if all is well, 1 if answers are degraded, 2 if some fail, and 3 if that
    cannot be told; --watch ends with 0.
    """
    adopted = Resilience.of(context.obj.app)
    _import_tasks(adopted)
    context.call_on_close(adopted.ledger.close)
    command = app_command(adopted.app)
    try:
        while True:
            found = look(adopted, command)
            if as_json:
                say_json(found, indent=None if watch else 2)
            else:
                lines = "\n".join(_lines(found))
                if watch:
                    click.clear()
                say(lines)
            if not watch:
                context.exit(int(Verdict[found["verdict"].upper()]))
            threading.Event().wait(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _import_tasks(adopted: Resilience) -> None:
    """Import the app's tasks: their fallbacks are what users get while a circuit is open."""
    try:
        adopted.app.loader.import_default_modules()
    except Exception as error:  # noqa: BLE001 - what a module does; the rest can be shown
        text = text_of(error) or repr(error)
        why = f"the tasks cannot be imported, so levels may be worse than shown: {text}"
        say(_line(f"Warning: {why}"), err=True)


def _lines(found: Mapping[str, Any]) -> Iterable[str]:
    yield f"level: {found['level'] or 'not known'}{_since(found, found)}"
    for name, error in found["unknown"].items():
        yield _line(f"not known: what the {name} has; {error}")
    probed = {row["dependency"] for row in found["breakers"] if row["state"] == "open"}
    for one in found["reasons"]:
        ends = "next probe" if one["kind"] == "open" and one["name"] in probed else "until"
        until = f", {ends} {moment(one['until'])}" if one["until"] else ""
        yield _line(f"  {one['kind']} {one['name']}: {one['level']}{_since(one, found)}{until}")
        yield _line(f"    why: {one['why']}")
        yield _line(f"    users {one['users']}")
    for one in found["notes"]:
        until = f", until {moment(one['until'])}" if one["until"] else ""
        yield _line(f"  note {one['name']}: {one['why']}{_since(one, found)}{until}")
    yield from (_line(_objective(*one)) for one in found["objectives"].items())
    yield from (_line(_drill(one, found["at"])) for one in found["drills"])
    facts = {
        "breakers": (f"{r['dependency']} {r['state']}" for r in found["breakers"]),
        "holds": (f"{r['name']} by {r['actor']}" for r in found["holds"]),
        "flags": (f"{r['feature']} {'on' if r['enabled'] else 'off'}" for r in found["flags"]),
        "queues": (f"{name} {depth}" for name, depth in found["queues"].items() if depth),
        "dead letters": (
            f"{name} {jobs}{'+' if name in found['more_dead'] else ''}"
            for name, jobs in found["dead"].items()
        ),
    }
    for name, texts in facts.items():
        away = SOURCES[name] in found["unknown"]
        known = f"not known (the {SOURCES[name]} does not answer)" if away else ", ".join(texts)
        yield _line(f"{name}: {known or 'none'}")
    if found["next"]:
        yield "what to do next:"
    yield from (_line(f"  {words}") for words in found["next"])


def _objective(name: str, one: Mapping[str, Any]) -> str:
    ratio, minutes = one["full_ratio"], one["minutes_below_full"]
    share = "no answers" if ratio is None else f"{ratio:.3%} FULL"
    below = "" if minutes is None else f"{minutes} minutes below FULL, "
    wanted = f"{briefly(one['window_seconds'])} (wanted: {one['full'] * 100:g}%)"
    left = f"{one['budget_left']:.0%} of the error budget left"
    return f"objective {name}: {share} in {wanted}, {below}{left}"


def _drill(row: Mapping[str, Any], now: float) -> str:
    last, drills, answered = row["last"], row["drills"], row["answered"]
    if not drills:
        return f"drill {row['task']}: none yet"
    ago = "none for a day" if last is None else f"last {briefly(max(0.0, now - last['at']))} ago"
    text = f"drill {row['task']}: {ago}, {answered / drills:.0%} of {drills} would answer"
    text += f", at worst {row['worst']}" if answered else ""
    if last is None or last["source"] is None:
        return text
    age = "" if last["age"] is None else f", {briefly(last['age'])} old"
    return f"{text}; the last: {last['level']} by {last['source']} in {last['seconds']:.3f} s{age}"


def _since(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    at = one["since"]
    return f" since {moment(at)} ({briefly(max(0.0, found['at'] - at))})" if at else ""


def _line(text: str) -> str:
    """Return *text* on one line, whatever others have written into it."""
    return shown(text).replace("\n", "\\n")
