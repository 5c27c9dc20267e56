"""How dead letters look to a human, at three in the morning."""

import json
from collections.abc import Sequence
from typing import Any

from resilience.cli.words import moment, say
from resilience.ledger import AuditEntry, Letter

SHOWN = ("state", "task", "dependency", "queue", "reason", "fingerprint", "attempts", "origin")
TIMES = ("created", "due", "died")
MESSAGE = ("args", "kwargs", "headers")


def print_letter(name: str, letter: Letter | None, audit: Sequence[AuditEntry]) -> None:
    """Print all that is known of the job *name*."""
    if letter is None:
        say(f"The ledger holds no job {name}.")
    else:
        say(letter.id, bold=True)
        for field in (*SHOWN, *TIMES):
            if (value := getattr(letter, field)) is not None:
                say(f"  {field:<12}{moment(value) if field in TIMES else value}")
        _print_message(letter.message)
        for number, error in enumerate(letter.errors, 1):
            _print_error(number, error)
    for entry in audit:
        became = f" as {entry.replay}" if entry.replay else ""
        say(f"{moment(entry.at)}  {entry.action} of {entry.job}{became}", bold=True)
        say(f"  by {entry.actor}: {entry.reason}")


def _print_message(message: Any) -> None:  # noqa: ANN401 - any JSON
    if not isinstance(message, dict):
        say(f"  message     {message}")
        return
    for field in MESSAGE:
        say(f"  {field:<12}{json.dumps(message.get(field), ensure_ascii=False)}")


def _print_error(number: int, error: Any) -> None:  # noqa: ANN401 - any JSON
    if not isinstance(error, dict):
        say(f"error {number}: {error}", fg="red")
        return
    at = error.get("at")
    when = f", {moment(at)}" if isinstance(at, int | float) else ""
    say(f"error {number}{when}: {error.get('type')}: {error.get('text')}", fg="red")
    if error.get("traceback"):
        say(str(error["traceback"]).rstrip())
