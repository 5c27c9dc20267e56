"""One terminal that several programs write to."""

import os

from supervisor import loggers  # type: ignore[import-untyped]

LINE_MAX_BYTES = 64 * 1024


class Terminal:
    """Puts the name of the program before every line that it wrote.

    Lines come out whole: what a program wrote of a line is kept until its end arrives. A line of
    more than 64 KiB is cut.

    Attributes:
        lost: Whether nobody reads any more: the terminal was closed, or the pipe. All that is
            written from then on is dropped.
    """

    def __init__(self, file_descriptor: int, *, name_width: int) -> None:
        """Write to *file_descriptor*.

        Args:
            file_descriptor: Of a terminal, pipe or file; becomes blocking.
            name_width: Columns for the names.
        """
        # Whoever shares the terminal may have left it non-blocking: a full one would look lost.
        os.set_blocking(file_descriptor, True)
        self._file_descriptor = file_descriptor
        self._name_width = name_width
        self._unfinished: dict[str, bytes] = {}
        self.lost = False

    def feed(self, name: str, output: bytes) -> None:
        """Write the lines that *output* of the program called *name* brings to an end."""
        *lines, rest = (self._unfinished.pop(name, b"") + output).split(b"\n")
        if len(rest) > LINE_MAX_BYTES:
            lines.append(rest)
            rest = b""
        if rest:
            self._unfinished[name] = rest
        self._write(name, lines)

    def finish(self, name: str) -> None:
        """Write what the program called *name* left of a line that it never ended."""
        if rest := self._unfinished.pop(name, b""):
            self._write(name, [rest])

    def _write(self, name: str, lines: list[bytes]) -> None:
        prefix = f"{name:<{self._name_width}} | ".encode()
        unwritten = memoryview(b"".join(prefix + line + b"\n" for line in lines))
        try:
            while unwritten and not self.lost:
                unwritten = unwritten[os.write(self._file_descriptor, unwritten) :]
        except OSError:
            self.lost = True


class TerminalHandler(loggers.Handler):  # type: ignore[misc]  # supervisor has no types
    """Writes supervisor's own messages to a terminal, as if it were one of the programs."""

    def __init__(self, terminal: Terminal, name: str) -> None:
        super().__init__()
        self._terminal = terminal
        self._name = name

    def emit(self, record: loggers.LogRecord) -> None:
        """Write the message of *record*."""
        self._terminal.feed(self._name, f"{record.asdict()['message']}\n".encode())
