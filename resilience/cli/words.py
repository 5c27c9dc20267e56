"""What people type and read: durations, and texts that somebody else wrote."""

import re

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def duration(text: str | float) -> float:
    """Return the seconds in *text*: so many, or `90s`, `15m`, `2h`, `7d`.

    Raises:
        click.BadParameter: It is no duration.
    """
    found = DURATION.fullmatch(str(text))
    if found is None:
        msg = f"{text!r} is no duration; write 90s, 15m, 2h or 7d."
        raise click.BadParameter(msg)
    return float(found[1]) * UNITS[found[2] or "s"]


def briefly(seconds: float) -> str:
    """Return a duration in the largest unit that it fills, as `--older-than` takes it: `3h`."""
    unit = next((unit for unit in ("d", "h", "m") if abs(seconds) >= UNITS[unit]), "s")
    return f"{int(seconds / UNITS[unit])}{unit}"


def plain(text: object) -> str:
    """Return *text* with all that would steer a terminal, or cannot be printed, escaped."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in str(text).expandtabs()
    )
