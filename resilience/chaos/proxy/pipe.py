"""What lies between two stages of a link: chunks in order, then an end."""

import asyncio
from collections import deque
from enum import Enum
from typing import NamedTuple


class End(Enum):
    """How a stream ends."""

    EOF = "the sender sends no more, and may still receive"
    CLOSE = "the connection is closed"
    RESET = "the connection is reset"


class Chunk(NamedTuple):
    """Data, and when it came to this place of the link, in seconds of the event loop's clock."""

    data: memoryview
    at: float


class Pipe:
    """A bounded queue from one producer to one consumer, both in the same event loop.

    A consumer consumes a chunk once it has passed the chunk on. So it can be cancelled wherever it
    waits, and nothing is lost or sent twice.

    Attributes:
        end: What follows the chunks; None while more may come.
    """

    def __init__(self) -> None:
        self._capacity = 1
        self.end: End | None = None
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    def set_capacity(self, size: int) -> None:
        """Let the producer wait while *size* bytes are queued; 1: until all is consumed."""
        self._capacity = size
        self._changed.set()

    async def put(self, chunk: Chunk) -> None:
        """Append *chunk* once there is room; drop it if the stream has ended meanwhile."""
        while self._size >= self._capacity and self.end is None:
            await self._change()
        if self.end is None:
            self._chunks.append(chunk)
            self._size += len(chunk.data)
            self._changed.set()

    def finish(self, end: End) -> None:
        """End the stream after what is queued, unless it has ended already."""
        self.end = self.end or end
        self._changed.set()

    async def peek(self) -> Chunk | End:
        """Return the first chunk, which stays queued, or the end when no chunk is left."""
        while not self._chunks:
            if self.end is not None:
                return self.end
            await self._change()
        return self._chunks[0]

    def consume(self, size: int) -> None:
        """Remove the first *size* bytes of the first chunk, which has at least that many."""
        data, at = self._chunks.popleft()
        if size < len(data):
            self._chunks.appendleft(Chunk(data[size:], at))
        self._size -= size
        self._changed.set()

    def absorb(self, later: "Pipe") -> None:
        """Put what is queued in *later* in front, as the stage between the two is removed.

        If *later* has ended, so has this pipe: what that stage did not let through is dropped.
        """
        if later.end is not None:
            self.drop(later.end)
        self._chunks.extendleft(reversed(later._chunks))  # noqa: SLF001 - of the same class
        self._size += later._size  # noqa: SLF001 - as above
        self._changed.set()

    def drop(self, end: End) -> None:
        """Drop what is queued, and end the stream."""
        self._chunks.clear()
        self._size = 0
        self.end = end
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
