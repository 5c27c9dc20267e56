"""The truth table of a proof: as rows, as Markdown, and compared with a committed one."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final

COLUMNS: Final = ("call", "fault", "level", "source", "seconds")
ROW: Final = re.compile(r"^\|" + r" ([^|]*?) \|" * 4 + r" [\d.]+ \|$", re.MULTILINE)
NONE: Final = "none"
"""Stands for the fault of the healthy call."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        call: Its name.
        fault: What was injected; `none` for the healthy call.
        level: Of the answer; `no answer` if none came.
        source: What answered.
        seconds: How long that took.
        broken: Promises that were broken.
    """

    call: str
    fault: str
    level: str
    source: str
    _: KW_ONLY
    seconds: float
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was tried, and what came of it.

    Attributes:
        rows: In the order of the runs.
        pruned: Pairs that were left out as they cannot meet.
        seconds: How long it took.
    """

    rows: Sequence[Row]
    pruned: int
    seconds: float

    @property
    def broken(self) -> list[str]:
        """All promises that were broken."""
        return [sentence for row in self.rows for sentence in row.broken]


def markdown(rows: Iterable[Row]) -> str:
    """Return the table in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = (row.call, row.fault, row.level, row.source, f"{row.seconds:.1f}")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join((*lines, ""))


def parse(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return level and source by call and fault, from a text that `markdown` wrote.

    Other lines of the text are passed over.

    Raises:
        ValueError: There is no table.
    """
    if not (rows := ROW.findall(text)):
        msg = f"no table with the columns {', '.join(COLUMNS)}"
        raise ValueError(msg)
    return {(call, fault): (level, source) for call, fault, level, source in rows}


def changes(rows: Collection[Row], baseline: str, *, whole: bool) -> list[str]:
    """Return how *rows* differ from the table in *baseline*, a sentence for each; not in seconds.

    Args:
        rows: What was found now.
        baseline: Text with a table, as `markdown` writes it.
        whole: Whether a row of the baseline that is not among *rows* is a change; if not, only
            some of the faults were tried.

    Raises:
        ValueError: There is no table in *baseline*.
    """
    before = parse(baseline)
    found = []
    for row in rows:
        now = row.level, row.source.replace("|", "/")
        was = before.pop((row.call, row.fault), None)
        if was is None:
            found.append(f"{row.call} under {row.fault}: {_text(now)} is not in the baseline")
        elif was != now:
            found.append(f"{row.call} under {row.fault}: {_text(now)}, but was {_text(was)}")
    if whole:
        found += [f"{call} under {fault}: in the baseline only" for call, fault in before]
    return found


def _text(cells: tuple[str, str]) -> str:
    level, source = cells
    return f"{level} ({source})" if source else level
