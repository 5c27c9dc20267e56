"""How dead letters look to a human, at three in the morning."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from resilience.cli.rows import console
from resilience.cli.words import briefly, moment, plain
from resilience.clock import SystemClock
from resilience.ledger import AuditEntry, Letter
from resilience.monitor.rows import last_error

SHOWN = ("state", "task", "dependency", "queue", "reason", "fingerprint", "attempts", "origin")
MESSAGE = ("args", "kwargs", "headers")


def print_letters(letters: Iterable[Letter]) -> None:
    """Print a table of *letters*, what can be pasted into other commands in its last column."""
    from rich.table import Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415 - an extra

    now = SystemClock().now()
    table = Table("age", "attempts", "task, reason, last error", "id, fingerprint")
    table.columns[0].no_wrap = table.columns[1].no_wrap = table.columns[3].no_wrap = True
    for letter in letters:
        table.add_row(
            briefly(max(0.0, now - (letter.died or now))),
            str(letter.attempts),
            Text.assemble(
                (plain(letter.task), "bold"),
                "\n",
                (plain(letter.reason), "red"),
                f": {plain(last_error(letter))}",
            ),
            Text(f"{plain(letter.id)}\n{plain(letter.fingerprint)}"),
        )
    console().print(table)


def print_letter(name: str, letter: Letter | None, audit: Sequence[AuditEntry]) -> None:
    """Print all that is known of the job *name*."""
    from rich.text import Text  # noqa: PLC0415 - an extra

    out = console(highlight=False, soft_wrap=True)

    def say(text: str, style: str = "") -> None:
        out.print(Text(plain(text), style))

    if letter is None:
        say(f"The ledger holds no job {name}.")
    else:
        say(f"{letter.id}", "bold")
        for field in SHOWN:
            if (value := getattr(letter, field)) is not None:
                say(f"  {field:<12}{value}")
        for field in ("created", "due", "died"):
            if (at := getattr(letter, field)) is not None:
                say(f"  {field:<12}{moment(at)}")
        _say_message(letter.message, say)
        for number, error in enumerate(letter.errors, 1):
            _say_error(number, error, say)
    for entry in audit:
        became = f" as {entry.replay}" if entry.replay else ""
        say(f"{moment(entry.at)}  {entry.action} of {entry.job}{became}", "bold")
        say(f"  by {entry.actor}: {entry.reason}")


def _say_message(message: Any, say: Any) -> None:  # noqa: ANN401 - any JSON; a function
    if not isinstance(message, dict):
        say(f"  message     {message}")
        return
    for field in MESSAGE:
        say(f"  {field:<12}{json.dumps(message.get(field), ensure_ascii=False)}")


def _say_error(number: int, error: Any, say: Any) -> None:  # noqa: ANN401 - any JSON; a function
    if not isinstance(error, dict):
        say(f"error {number}: {error}", "red")
        return
    at = error.get("at")
    when = f", {moment(at)}" if isinstance(at, int | float) else ""
    say(f"error {number}{when}: {error.get('type')}: {error.get('text')}", "red")
    if error.get("traceback"):
        say(str(error["traceback"]).rstrip())
