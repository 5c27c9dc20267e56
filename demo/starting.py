"""Which programs of a shop are ready, and whether the others are getting there."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

PATIENCE_SECONDS: Final = 90.0
"""How long a program may go without a step forward."""
STEP_PROCESSOR_SECONDS: Final = 0.25
"""So much work is a step forward; a program that merely waits does not do it in 90 s."""
WORK_MAX_PROCESSOR_SECONDS: Final = 60.0
"""A start takes some three seconds of work: one that takes so many will not end."""
ENDS_MAX: Final = 3
TAIL_LINES: Final = 15
ENDED: Final = re.compile(r"backoff: (\S+) starts again")


class StartError(RuntimeError):
    """The shop did not start; the message says why and shows the end of the right logs."""


@dataclass(slots=True)
class _Progress:
    """How far a program has come, at the last step forward."""

    at: float
    lines: int = 0
    processor_seconds: float = 0.0


class Start:
    """The start of some programs, which may take long on a busy machine but must go on.

    A step forward is a line of output or a quarter of a second of processor time. There is no
    limit to how long a start takes as long as every program makes one every 90 s.

    Attributes:
        missing: The programs that are not ready yet.
        total: How many programs there are.
    """

    def __init__(self, ready_words: Mapping[str, str], *, now: float) -> None:
        """Begin.

        Args:
            ready_words: By name of a program, what it writes once it can be used.
            now: Seconds on any clock that goes on steadily.
        """
        self.missing = dict(ready_words)
        self.total = len(ready_words)
        self._progress = {name: _Progress(at=now) for name in ready_words}

    @property
    def ready(self) -> int:
        """How many programs are ready."""
        return self.total - len(self.missing)

    def look(
        self, lines: Sequence[str], processor_seconds: Mapping[str, float], *, now: float
    ) -> None:
        """Take note of how far the programs have come.

        Args:
            lines: All output so far; each line starts with the name of its program.
            processor_seconds: What each program has used so far.
            now: On the clock of before.

        Raises:
            StartError: A program does not get on, or has ended three times.
        """
        for name, words in list(self.missing.items()):
            output = of_program(name, lines)
            if any(words in line for line in output):
                del self.missing[name]
            else:
                self._note(name, len(output), processor_seconds.get(name, 0.0), now)
        ends = Counter(match.group(1) for match in map(ENDED.search, lines) if match)
        for name in self.missing:
            if ends[name] >= ENDS_MAX:
                self._give_up(f"{name} ended {ends[name]} times", lines)
            if now - self._progress[name].at > PATIENCE_SECONDS:
                self._give_up(f"{name} has made no progress for {PATIENCE_SECONDS:g} s", lines)
            if processor_seconds.get(name, 0.0) > WORK_MAX_PROCESSOR_SECONDS:
                spent = f"{WORK_MAX_PROCESSOR_SECONDS:g} s of processor time"
                self._give_up(f"{name} is not ready after {spent}", lines)

    def _note(self, name: str, lines: int, processor_seconds: float, now: float) -> None:
        last = self._progress[name]
        worked = processor_seconds - last.processor_seconds
        if lines != last.lines or worked >= STEP_PROCESSOR_SECONDS:
            self._progress[name] = _Progress(now, lines, processor_seconds)

    def _give_up(self, why: str, lines: Sequence[str]) -> NoReturn:
        tails = (self._end_of(name, lines) for name in self.missing)
        missing = f"{self.ready} of {self.total} programs were ready"
        raise StartError(
            "\n".join((f"{why}; {missing}. The output of those that were not:", *tails))
        )

    def _end_of(self, name: str, lines: Sequence[str]) -> str:
        worked = f"{self._progress[name].processor_seconds:.1f} s of processor time"
        output = of_program(name, lines)[-TAIL_LINES:] or ["nothing"]
        return "\n".join((f"{name}, after {worked}:", *output))


def of_program(name: str, lines: Sequence[str]) -> list[str]:
    """Return the lines that the program called *name* wrote."""
    return [line for line in lines if line.split(" ", 1)[0] == name]
