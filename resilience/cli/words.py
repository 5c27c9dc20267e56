"""What people type and read: durations, and texts that somebody else wrote."""

import json
import math
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from resilience.text import hide, shown

COUNT = click.IntRange(1, 2**31 - 1)
"""Type of an option that says how many: what every database can count to."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def duration(text: str) -> float:
    """Return the seconds in *text*: `90s`, `15m`, `2h`, `7d` or `0s`.

    Raises:
        click.BadParameter: It is no duration, has no unit, or is infinite.
    """
    found = DURATION.fullmatch(text)
    if found and not found[2]:
        msg = f"{text!r} has no unit; write {text}s, {text}m, {text}h or {text}d."
        raise click.BadParameter(msg)
    seconds = float(found[1]) * UNITS[found[2]] if found else math.inf
    if seconds == math.inf:
        msg = f"{text[:20]!r} is no duration; write 90s, 15m, 2h or 7d."
        raise click.BadParameter(msg)
    return seconds


def duration_in_seconds(text: str | float) -> float:
    """Return the seconds in *text*, for an option whose name is the unit: `90`, `90s` or `1.5m`.

    Raises:
        click.BadParameter: It is no duration, or is 0.
    """
    written = str(text)
    seconds = duration(f"{written}s" if written[-1:].isdigit() else written)
    if not seconds:
        msg = f"{written!r} must be more than 0."
        raise click.BadParameter(msg)
    return seconds


def above_zero(text: str | float) -> float:
    """Return the finite number in *text*.

    Raises:
        click.BadParameter: It is no number, or not more than 0.
    """
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    msg = f"{str(text)[:20]!r} must be a number, more than 0."
    raise click.BadParameter(msg)


def confirm(question: str) -> None:
    """Ask on standard error, which leaves standard output to what the command prints.

    Raises:
        click.Abort: The answer is not yes, or nobody is there to answer; the exit code is 1.
    """
    click.confirm(shown(question), abort=True, err=True)


def briefly(seconds: float) -> str:
    """Return a duration in the largest unit that it fills, as `--older-than` takes it: `3h`."""
    unit = next((unit for unit in ("d", "h", "m") if abs(seconds) >= UNITS[unit]), "s")
    return f"{int(seconds / UNITS[unit])}{unit}"


def moment(at: float) -> str:
    """Return *at*, in seconds since the epoch, as date and time if it is in the calendar."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {at:g}"


def say_json(value: object, *, indent: int | None = 2) -> None:
    """Print *value* as JSON, which escapes what is not printable, without secrets."""
    click.echo(json.dumps(hide(value), indent=indent))


def say(text: object, **options: Any) -> None:  # noqa: ANN401 - click's
    """Print *text* as anybody may see it, with *options* of `click.secho`."""
    click.secho(shown(text), **options)
