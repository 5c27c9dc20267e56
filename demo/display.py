"""What a demo shows while it runs: bars on a terminal, lines elsewhere."""

from time import perf_counter
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

LINE_SECONDS: Final = 15.0
"""How often a step that takes long gets another line where there is no terminal."""


class Display:
    """One bar per step, the last of them moving."""

    def __init__(self, console: Console) -> None:
        """Show on *console*."""
        self._console = console
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(
            *columns, console=console, refresh_per_second=4, disable=not console.is_terminal
        )
        self._step = ""
        self._bar: TaskID | None = None
        self._line_at = 0.0

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def show(self, step: str, done: float, total: float, note: str) -> None:
        """Show that *done* of *total* of a step are over; a new step finishes the one before."""
        if step != self._step:
            if self._bar is not None:
                self._progress.update(self._bar, completed=self._progress.tasks[self._bar].total)
            self._step = step
            self._bar = self._progress.add_task(step, total=total, note=note)
            if self._progress.disable:
                self._console.print(step, style="bold")
                self._line_at = perf_counter()
        if self._bar is not None:
            self._progress.update(self._bar, completed=done, note=note)
        if self._progress.disable and perf_counter() - self._line_at >= LINE_SECONDS:
            self._console.print(f"  {note}", soft_wrap=True)
            self._line_at = perf_counter()
