"""Rows that a command prints: as a table for people, as JSON for programs."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import click

from resilience.cli.words import moment, say_json
from resilience.text import shown

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

WIDTH = 1000
"""Most characters of a line that no terminal shows."""
TIMES = frozenset({"at", "since", "until"})
"""Columns that a table shows as date and time where they hold seconds since the epoch."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def all_of(options: Sequence[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    """Return a decorator that adds *options*, which `--help` shows in this order."""
    return lambda command: reduce(lambda made, add: add(made), reversed(options), command)


def print_rows(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str],
    *,
    as_json: bool,
    whole: Sequence[str] = (),
) -> None:
    """Print *rows* as JSON, or their *columns* as a table, where None is an empty cell.

    A column in *whole* keeps each cell on one line.
    """
    if as_json:
        say_json(rows)
        return
    from rich.table import Column, Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415 - an extra

    # In a narrow terminal, as in a pipe, long names go on in the next line; rich would cut them.
    table = Table(*(Column(name, overflow="fold", no_wrap=name in whole) for name in columns))
    for row in rows:
        # As text: a reason may hold brackets, which rich would read as its own.
        table.add_row(*(Text(_cell(name, row[name])) for name in columns))
    console().print(table)


def _cell(name: str, value: object) -> str:
    if name in TIMES and isinstance(value, int | float):
        return moment(value)
    return "" if value is None else shown(value)


def console(**options: Any) -> "Console":  # noqa: ANN401 - rich's
    """Return where tables are printed: as wide as the terminal, and elsewhere as they need.

    `COLUMNS` says otherwise.
    """
    from rich.console import Console  # noqa: PLC0415 - an extra

    return Console(width=shutil.get_terminal_size((WIDTH, 0)).columns, **options)
