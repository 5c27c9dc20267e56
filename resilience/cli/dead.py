"""`celery -A app resilience dead`: see dead letters, run them again or let them go."""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from resilience.cli.breakers import who
from resilience.cli.ledger import ledger_of
from resilience.cli.letters import print_letter
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import (
    COUNT,
    above_zero,
    briefly,
    confirm,
    duration,
    duration_in_seconds,
    say,
    say_json,
)
from resilience.clock import SystemClock
from resilience.declared import nearest
from resilience.ledger import Letter, Letters, State, Which
from resilience.ledger.lookups import CAUSES_MOST
from resilience.monitor.replay import RATE, SAMPLE, SAMPLE_SECONDS, Replay
from resilience.monitor.rows import cause_rows, last_error
from resilience.tasks.resilience import Resilience
from resilience.text import shown

LIST = 50
"""Most letters that are listed unless told otherwise."""
EVERY = sys.maxsize
CAUSES = ("letters", "age", "cause", "fingerprint")
LETTERS = ("age", "attempts", "cause", "id, fingerprint")

FILTERS = (
    click.option("--dependency", help="Only those of this dependency."),
    click.option("--task", help="Only those of the task with this name."),
    click.option("--fingerprint", help="Only those with this cause."),
    click.option("--older-than", "min_age_seconds", type=duration, help="Only those dead so long."),
)
YES = click.option("--yes", is_flag=True, help="Skip the question; required without a terminal.")
CHANGES = (
    click.argument("name", metavar="[ID]", required=False),
    *FILTERS,
    click.option("--all", "every", is_flag=True, help="All there are; else ID or filters say."),
    click.option("--limit", type=COUNT, help="Oldest so many at most."),
    click.option("--actor", default=who, show_default="who runs this", help="Kept in the audit."),
    click.option("--reason", help="Why; kept in the audit. Needed unless it is a dry run."),
    click.option("--dry-run", is_flag=True, help="Say how many; change nothing."),
    JSON,
)


@click.group(context_settings={"show_default": True})
def dead() -> None:
    """See dead letters: jobs that were given up. Run them again, or let them go."""


@dead.command("list")
@all_of(FILTERS)
@click.option("--each", is_flag=True, help="Each letter, oldest first; so does --fingerprint.")
@click.option("--limit", type=COUNT, default=LIST)
@JSON
@click.pass_context
def list_letters(context: click.Context, /, *, each: bool, limit: int, **options: Any) -> None:  # noqa: ANN401 - FILTERS, JSON
    """List dead letters by cause, those with the most letters first."""
    as_json, letters = options.pop("as_json"), ledger_of(context).letters
    which = Which(**options)
    each = each or which.fingerprint is not None
    find: Callable[..., list[Any]] = letters.find if each else partial(cause_rows, letters)
    rows = find(which, limit=limit + 1)
    if as_json:
        shown = [asdict(letter) for letter in rows[:limit]] if each else rows[:limit]
        say_json(shown)
    elif not rows:
        _say_nothing_found(context, which)
    elif each:
        _print_letters(rows[:limit])
    else:
        _print_causes(rows[:limit])
    if len(rows) > limit and not as_json:
        say(f"The {'oldest' if each else 'largest'} {limit}; there are more.")


def _print_letters(letters: list[Letter]) -> None:
    """Print a table of *letters*, what can be pasted into other commands in its last column."""
    now = SystemClock().now()
    rows = [
        {
            "age": briefly(max(0.0, now - (letter.died or now))),
            "attempts": letter.attempts,
            "cause": f"{letter.task}\n{letter.reason}: {last_error(letter)}",
            "id, fingerprint": f"{letter.id}\n{letter.fingerprint}",
        }
        for letter in letters
    ]
    print_rows(rows, LETTERS, as_json=False, whole=("age", "attempts", LETTERS[-1]))


def _print_causes(rows: list[dict[str, Any]]) -> None:
    now = SystemClock().now()
    for row in rows:
        row["age"] = briefly(max(0.0, now - row["oldest"]))
        row["cause"] = f"{row['task']}\n{row['reason']}: {row['last_error']}"
    print_rows(rows, CAUSES, as_json=False, whole=CAUSES[-1:])
    if sum(row["letters"] for row in rows) >= CAUSES_MOST:
        say(f"The oldest {CAUSES_MOST:,} letters were counted; there may be more.")
    say("`dead list --fingerprint …` lists the letters of a cause.")


@dead.command()
@click.argument("name", metavar="ID")
@JSON
@click.pass_context
def show(context: click.Context, name: str, *, as_json: bool) -> None:
    """Show all that is known of a job, in whatever state it is, and what was done to it.

    Exits with 1 if the ledger knows nothing of it.
    """
    letters = ledger_of(context).letters
    letter, audit = letters.show(name), letters.audit(job=name)
    if as_json:
        record = {"job": letter and asdict(letter), "audit": [asdict(entry) for entry in audit]}
        say_json(record)
    else:
        print_letter(name, letter, audit)
    if letter is None and not audit:
        context.exit(1)


@dead.command()
@all_of(CHANGES)
@click.option("--rate", type=above_zero, default=RATE, help="Jobs a second.")
@click.option(
    "--sample",
    type=COUNT,
    default=SAMPLE,
    help="Replay so many first; stop if one fails.",
)
@click.option(
    "--sample-seconds",
    "seconds",
    type=duration_in_seconds,
    default=SAMPLE_SECONDS,
    help="Longest wait for the sample to end.",
)
@click.option("--no-sample", is_flag=True, help="Replay all at once.")
@click.pass_context
def replay(context: click.Context, /, *, sample: int, seconds: float, **options: Any) -> None:  # noqa: ANN401 - CHANGES
    """Run dead letters again, oldest first, as new jobs that point to their letters.

    Exits with 1 if a job of the sample fails again; the other letters then stay as they are.
    """
    rate, as_json = options.pop("rate"), options["as_json"]
    sample = EVERY if options.pop("no_sample") else sample
    nothing: dict[str, Any] = {"replayed": {}, "sample": None, "stopped": False}
    letters, which, ids, by = _chosen(context, "replayed", nothing, **options)
    order, total = Replay(letters, which, rate=rate, **by), len(ids)
    deque(order.run(total, sample=sample, seconds=seconds), maxlen=0)
    if as_json:
        became = {"replayed": order.replayed, "sample": order.sample and order.sample._asdict()}
        say_json({**became, "stopped": order.stopped})
    elif order.sample:
        say(f"Sample of {sample} from {total}: {order.sample}.")
    if order.stopped:
        left = total - len(order.replayed)
        say(f"Stopped: {left} letters were not replayed. `dead show` says why.", err=True)
        context.exit(1)
    if not as_json:
        say(f"{len(order.replayed)} replayed, at most {rate:g} a second.")


@dead.command()
@all_of(CHANGES)
@YES
@click.pass_context
def discard(context: click.Context, /, *, yes: bool, **options: Any) -> None:  # noqa: ANN401 - CHANGES
    """Forget dead letters, oldest first; only the audit remembers who did so, and why."""
    letters, which, ids, by = _chosen(context, "discarded", {"discarded": []}, **options)
    if not yes:
        confirm(f"Discard {len(ids)} dead letters for good?")
    # Letters may have died, and some of these may be gone, while the question was open.
    ids = letters.discard(which, limit=EVERY, among=ids, **by)
    text = f"{len(ids)} discarded."
    if options["as_json"]:
        say_json({"discarded": ids})
    else:
        say(text)


@dead.command()
@click.option("--older-than", type=duration, required=True, help="What has been there for so long.")
@YES
@JSON
@click.pass_context
def purge(context: click.Context, *, older_than: float, yes: bool, as_json: bool) -> None:
    """Forget old dead letters, old audit entries, and idempotency records that are over."""
    letters = ledger_of(context).letters
    if not yes:
        age = briefly(older_than)
        confirm(f"Forget for good all dead letters and audit entries older than {age}?")
    purged = letters.purge(older_than_seconds=older_than)
    text = (
        f"Forgotten: {purged.letters} letters, {purged.audit} audit entries, "
        f"{purged.claims} idempotency records."
    )
    if as_json:
        say_json(asdict(purged))
    else:
        say(text)


def _chosen(
    context: click.Context,
    verb: str,
    nothing: Mapping[str, Any],
    *,
    name: str | None,
    every: bool,
    actor: str,
    reason: str | None,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - FILTERS
) -> tuple[Letters, Which, list[str], dict[str, Any]]:
    """Return the letters, which are meant, the ids of these, and who means them and why.

    If nothing is to be changed, this says so and ends the command, with exit code 1 if a letter was
    named that is not there; filters may match none.

    Raises:
        click.UsageError: It is not said which letters, or by whom and why.
    """
    which = Which(id=name, **filters)
    if (which == Which()) != every:
        given = "both --all and some" if every else "none"
        msg = f"Say which: an ID, filters, or --all for all there are; {given} is given."
        raise click.UsageError(msg)
    if not actor.strip():
        msg = "--actor must not be empty."
        raise click.UsageError(msg)
    if not dry_run and not (reason or "").strip():
        msg = "Say why, with --reason; it is kept."
        raise click.UsageError(msg)
    letters = ledger_of(context).letters
    ids = letters.ids(which, limit or EVERY)
    if dry_run or not ids:
        if as_json:
            say_json({f"would_be_{verb}": len(ids)} if dry_run else nothing, indent=None)
        elif ids:
            say(f"{len(ids)} would be {verb}.")
        else:
            _say_nothing_found(context, which)
        context.exit(int(name is not None and not ids))
    return letters, which, ids, {"actor": actor, "reason": reason}


def _say_nothing_found(context: click.Context, which: Which) -> None:
    adopted = Resilience.of(context.obj.app)
    counts = adopted.ledger.counts()
    dead = {one.dependency: one.amount for one in counts if one.state is State.DEAD}
    there = ", ".join(f"{shown(name)}: {amount}" for name, amount in dead.items())
    given = {kind: value for kind, value in asdict(which).items() if value is not None}
    known = {"dependency": {*adopted.dependencies, *dead}, "task": {*adopted.app.tasks}}
    hints = "".join(
        f" Did you mean the {kind} {shown(near)!r}?"
        for kind, names in known.items()
        if (name := getattr(which, kind)) is not None and name not in names
        for near in nearest(name, names)
    )
    asked = " and".join(f" of {kind} {shown(str(value))!r}" for kind, value in given.items())
    say(f"No dead letters{asked}.{hints} By dependency: {there or 'none'}.")
