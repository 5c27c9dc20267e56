"""`celery -A app resilience dead`: see dead letters, run them again or let them go."""

import json
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from resilience.cli.breakers import who
from resilience.cli.ledger import ledger_of
from resilience.cli.letters import print_letter, print_letters
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import briefly, confirm, duration, duration_in_seconds, plain
from resilience.clock import SystemClock
from resilience.declared import nearest
from resilience.ledger import Ledger, State, Which
from resilience.ledger.lookups import CAUSES_MOST
from resilience.monitor.replay import RATE, SAMPLE, SAMPLE_SECONDS, Replay
from resilience.monitor.rows import cause_rows
from resilience.tasks.resilience import Resilience

LIST = 50
"""Most letters that are listed unless told otherwise."""
EVERY = sys.maxsize
CAUSES = ("letters", "age", "cause", "fingerprint")

FILTERS = (
    click.option("--dependency", help="Only those of this dependency."),
    click.option("--task", help="Only those of the task with this name."),
    click.option("--fingerprint", help="Only those with this cause."),
    click.option(
        "--older-than", "min_age_seconds", type=duration, help="Only those dead for so long."
    ),
)
YES = click.option("--yes", is_flag=True, help="Skip the question; required without a terminal.")
CHANGES = (
    click.argument("name", metavar="[ID]", required=False),
    *FILTERS,
    click.option("--all", "every", is_flag=True, help="All there are; else ID or filters say."),
    click.option("--limit", type=click.IntRange(1), default=EVERY, help="Oldest so many at most."),
    click.option("--actor", default=who, show_default="who runs this", help="Kept in the audit."),
    click.option("--reason", help="Why; kept in the audit. Needed unless it is a dry run."),
    click.option("--dry-run", is_flag=True, help="Say how many; change nothing."),
    JSON,
)


@click.group()
def dead() -> None:
    """See dead letters: jobs that were given up. Run them again, or let them go."""


@dead.command("list")
@all_of(FILTERS)
@click.option("--each", is_flag=True, help="Each letter, oldest first; so does --fingerprint.")
@click.option("--limit", type=click.IntRange(1), default=LIST, show_default=True)
@JSON
@click.pass_context
def list_letters(
    context: click.Context,
    /,
    *,
    each: bool,
    limit: int,
    as_json: bool,
    **filters: str | float | None,
) -> None:
    """List dead letters by cause, those with the most letters first."""
    ledger, which = ledger_of(context), Which(**filters)  # type: ignore[arg-type]
    if not each and which.fingerprint is None:
        _list_causes(context, ledger, which, limit, as_json=as_json)
        return
    letters = ledger.letters.find(which, limit=limit + 1)
    if as_json:
        click.echo(json.dumps([letter.to_json() for letter in letters[:limit]], indent=2))
    elif not letters:
        _say_nothing_found(context, which)
    else:
        print_letters(letters[:limit])
        if len(letters) > limit:
            click.echo(f"The oldest {limit}; there are more.")


def _list_causes(
    context: click.Context, ledger: Ledger, which: Which, limit: int, *, as_json: bool
) -> None:
    rows = cause_rows(ledger.letters, which, limit=limit + 1)
    if as_json:
        click.echo(json.dumps(rows[:limit], indent=2))
        return
    if not rows:
        _say_nothing_found(context, which)
        return
    now = SystemClock().now()
    for row in rows:
        row["age"] = briefly(max(0.0, now - row["oldest"]))
        row["cause"] = f"{row['task']}\n{row['reason']}: {row['last_error']}"
    print_rows(rows[:limit], CAUSES, as_json=False, whole=CAUSES[-1:])
    if len(rows) > limit:
        click.echo(f"The largest {limit}; there are more.")
    if sum(row["letters"] for row in rows[:limit]) >= CAUSES_MOST:
        click.echo(f"The oldest {CAUSES_MOST:,} letters were counted; there may be more.")
    click.echo("`dead list --fingerprint …` lists the letters of a cause.")


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
        known = {"job": letter and letter.to_json(), "audit": [asdict(entry) for entry in audit]}
        click.echo(json.dumps(known, indent=2))
    else:
        print_letter(name, letter, audit)
    if letter is None and not audit:
        context.exit(1)


@dead.command()
@all_of(CHANGES)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=RATE,
    show_default=True,
    help="Jobs per second.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=SAMPLE,
    show_default=True,
    help="Replay so many first, and the others only if none of these fails again.",
)
@click.option(
    "--sample-seconds",
    type=duration_in_seconds,
    default=SAMPLE_SECONDS,
    show_default=True,
    help="Longest wait for the sample to end.",
)
@click.option("--no-sample", is_flag=True, help="Replay all at once.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    *,
    rate: float,
    sample: int,
    sample_seconds: float,
    no_sample: bool,
    as_json: bool,
    dry_run: bool,
    **chosen: Any,  # noqa: ANN401 - CHANGES
) -> None:
    """Run dead letters again, oldest first, as new jobs that point to their letters.

    Exits with 1 if a job of the sample fails again; the other letters then stay as they are.
    """
    letters = ledger_of(context).letters
    which, by = _chosen(dry_run=dry_run, **chosen)
    total = min(letters.extent(which)[0], chosen["limit"])
    nothing = {"replayed": {}, "sample": None, "stopped": False}
    if _ends_here(context, which, total, "replayed", nothing, dry_run=dry_run, as_json=as_json):
        return
    given = Replay(letters, which, rate=rate, **by)
    first = total if no_sample else sample
    deque(given.run(total, sample=first, sample_seconds=sample_seconds), maxlen=0)
    replayed, watched = given.replayed, given.sample
    if as_json:
        said = {"replayed": replayed, "sample": watched and asdict(watched)}
        click.echo(json.dumps({**said, "stopped": given.stopped}, indent=2))
    else:
        if watched:
            click.echo(f"Sample of {sample} from {total}: {watched}.")
        click.echo(f"{len(replayed)} replayed, at most {rate:g} a second.")
    if given.stopped:
        left = total - len(replayed)
        click.echo(f"Stopped: {left} letters were not replayed. `dead show` says why.", err=True)
        context.exit(1)


@dead.command()
@all_of(CHANGES)
@YES
@click.pass_context
def discard(
    context: click.Context,
    /,
    *,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **chosen: Any,  # noqa: ANN401 - CHANGES
) -> None:
    """Forget dead letters, oldest first; only the audit remembers who did so, and why."""
    letters = ledger_of(context).letters
    which, by = _chosen(dry_run=dry_run, **chosen)
    forget = partial(letters.discard, which, limit=chosen["limit"], **by)
    names = forget(dry_run=True)
    nothing = {"discarded": []}
    if _ends_here(
        context, which, len(names), "discarded", nothing, dry_run=dry_run, as_json=as_json
    ):
        return
    if not yes:
        confirm(f"Discard {len(names)} dead letters for good?")
    # Letters may have died, and some of these may be gone, while the question was open.
    names = forget(among=names)
    click.echo(
        json.dumps({"discarded": names}, indent=2) if as_json else f"{len(names)} discarded."
    )


@dead.command()
@click.option("--older-than", type=duration, required=True, help="What has been there for so long.")
@YES
@JSON
@click.pass_context
def purge(context: click.Context, *, older_than: float, yes: bool, as_json: bool) -> None:
    """Forget old dead letters, old audit entries, and idempotency records that are over."""
    letters = ledger_of(context).letters
    if not yes:
        confirm(
            f"Forget for good all dead letters and audit entries older than {briefly(older_than)}?"
        )
    purged = letters.purge(older_than_seconds=older_than)
    text = (
        f"Forgotten: {purged.letters} letters, {purged.audit} audit entries, "
        f"{purged.claims} idempotency records."
    )
    click.echo(json.dumps(asdict(purged), indent=2) if as_json else text)


def _chosen(
    *,
    name: str | None,
    every: bool,
    actor: str,
    reason: str | None,
    dry_run: bool,
    limit: int,  # noqa: ARG001 - the caller's
    **filters: Any,  # noqa: ANN401 - FILTERS
) -> tuple[Which, dict[str, str]]:
    """Return which letters are meant, and who means them and why.

    Raises:
        click.UsageError: It is not said.
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
    return which, {"actor": actor, "reason": reason or ""}


def _ends_here(
    context: click.Context,
    which: Which,
    count: int,
    verb: str,
    nothing: Mapping[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Tell whether nothing is to be changed, and say so: it is a dry run, or there is no letter.

    Exits with 1 if a letter was named that is not there; filters may match none.
    """
    if count and not dry_run:
        return False
    if as_json:
        click.echo(json.dumps({f"would_be_{verb}": count} if dry_run else nothing))
    elif count:
        click.echo(f"{count} would be {verb}.")
    else:
        _say_nothing_found(context, which)
    if which.id is not None and not count:
        context.exit(1)
    return True


def _say_nothing_found(context: click.Context, which: Which) -> None:
    adopted = Resilience.of(context.obj.app)
    counts = [one for one in adopted.ledger.counts() if one.state is State.DEAD]
    there = ", ".join(f"{plain(one.dependency)}: {one.amount}" for one in counts)
    known: dict[str, Iterable[str]] = {
        "dependency": {*adopted.dependencies, *(one.dependency for one in counts)},
        "task": adopted.app.tasks,
    }
    hints = "".join(
        f" Did you mean the {kind} {plain(near)!r}?"
        for kind, names in known.items()
        if (name := getattr(which, kind)) is not None and name not in names
        for near in nearest(name, names)
    )
    click.echo(f"No such dead letters.{hints} There are {there or 'none at all'}.")
