"""What each type of toxic does to a stream; types, attributes and defaults are Toxiproxy's.

Source: Toxiproxy 2.12, https://github.com/Shopify/toxiproxy. `stall` is our own.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from resilience.chaos.proxy.pipe import Chunk, End, Pipe

DAY_MS = 86_400_000
LATENCY_BYTES = 16 * 1024 * 1024
"""So much of a stream may be under way on a link with latency."""
INTERVAL_MS = 100
"""A narrow link passes on what it carries in this time."""
LAG_SECONDS = 0.1
"""A paced stream that falls behind by more, as its receiver is slow, does not catch up."""

Milliseconds = Annotated[int, Field(ge=0, le=DAY_MS)]
Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(slots=True)
class Stage:
    """A toxic on one link, and what it remembers of that link.

    Attributes:
        name: Of the toxic.
        random: For jitter and sizes.
        draw: In [0, 1); the toxic affects the link if its toxicity is higher.
        effect: What the toxic does to the link.
        source: Where its data comes from.
        sink: Where its data goes.
        due: When something is to happen, in seconds of the event loop's clock; None: not yet known.
        sent: Bytes passed on so far.
    """

    name: str
    random: Random
    draw: float
    effect: "Effect"
    source: Pipe
    sink: Pipe = field(default_factory=Pipe)
    due: float | None = None
    sent: int = 0

    async def wait(self, seconds: float) -> None:
        """Wait until *seconds* after the first call; another toxic's coming does not prolong it."""
        if self.due is None:
            self.due = now() + seconds
        await sleep_until(self.due)

    async def send(self, piece: memoryview, at: float) -> None:
        """Pass on *piece*, the beginning of the source's first chunk, as of the moment *at*."""
        await self.sink.put(Chunk(piece, at))
        self.sent += len(piece)
        self.source.consume(len(piece))


class Effect(BaseModel):
    """Passes everything on at once: what a toxic does where it does nothing else.

    Attributes:
        capacity: Bytes that may wait for this effect.
        closes_when_removed: Whether links that it affects are closed when it is removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    capacity: ClassVar[int] = 1
    closes_when_removed: ClassVar[bool] = False

    async def run(self, stage: Stage) -> None:
        """Pass on what comes, until the end. May be cancelled at any time, and run again."""
        while stage.sink.end is None:
            item = await stage.source.peek()
            if isinstance(item, End):
                await self.end(stage)
                stage.sink.finish(item)
            else:
                await self.send(stage, item)

    async def send(self, stage: Stage, chunk: Chunk) -> None:
        """Pass *chunk*, the first of the source, on."""
        await stage.send(chunk.data, chunk.at)

    async def end(self, stage: Stage) -> None:
        """Return when the end may be passed on."""


class Latency(Effect):
    """Delays all data by `latency` ± `jitter`, in order; the closing is not delayed."""

    latency: Milliseconds = 0
    jitter: Milliseconds = 0

    capacity: ClassVar[int] = LATENCY_BYTES

    async def send(self, stage: Stage, chunk: Chunk) -> None:
        """Pass *chunk* on when its time has come."""
        delay = self.latency + stage.random.uniform(-self.jitter, self.jitter)
        due = chunk.at + max(delay, 0) / 1000
        await sleep_until(due)
        await stage.send(chunk.data, due)


class Bandwidth(Effect):
    """Passes on at most `rate` KB (of 1,000 bytes) a second; nothing if that is 0."""

    rate: Count = 0

    async def send(self, stage: Stage, chunk: Chunk) -> None:
        """Pass on as much of *chunk* as the link carries in 100 ms."""
        if not self.rate:
            await forever()
        piece = chunk.data[: self.rate * INTERVAL_MS]
        began = max(stage.due or 0.0, chunk.at)
        due = began + len(piece) / (self.rate * 1000)
        await sleep_until(due)
        await stage.send(piece, due)
        stage.due = max(due, now() - LAG_SECONDS)


class SlowClose(Effect):
    """Delays the closing by `delay`."""

    delay: Milliseconds = 0

    async def end(self, stage: Stage) -> None:
        """Return after the delay."""
        await stage.wait(self.delay / 1000)


class Timeout(Effect):
    """Drops all data, and closes the connection after `timeout`, or when removed if that is 0."""

    timeout: Milliseconds = 0

    closes_when_removed: ClassVar[bool] = True

    async def run(self, stage: Stage) -> None:
        """Drop what comes, until the time is up or the sender closes."""
        if stage.due is None and self.timeout:
            stage.due = now() + self.timeout / 1000
        try:
            async with asyncio.timeout_at(stage.due):
                while not isinstance(item := await stage.source.peek(), End):
                    stage.source.consume(len(item.data))
        except TimeoutError:
            pass  # as the closing of the sender, it ends the connection
        stage.sink.finish(End.CLOSE)


class ResetPeer(Effect):
    """Resets the connection `timeout` after the first data or closing, none of which it passes."""

    timeout: Milliseconds = 0

    async def run(self, stage: Stage) -> None:
        """Wait for the first data or the closing, then for the timeout."""
        await stage.source.peek()
        await stage.wait(self.timeout / 1000)
        stage.sink.finish(End.RESET)


class Slicer(Effect):
    """Cuts data into pieces of `average_size` ± `size_variation`, `delay` (µs) after each."""

    average_size: Annotated[int, Field(ge=1, le=2**53)]
    size_variation: Count = 0
    delay: Annotated[int, Field(ge=0, le=DAY_MS * 1000)] = 0

    @model_validator(mode="after")
    def _has_positive_sizes(self) -> Self:
        if self.size_variation >= self.average_size:
            msg = (
                f"size_variation must be less than average_size ({self.average_size}), "
                f"got {self.size_variation}"
            )
            raise ValueError(msg)
        return self

    async def send(self, stage: Stage, chunk: Chunk) -> None:
        """Pass a piece of *chunk* on when the delay after the one before is over."""
        variation = stage.random.randint(-self.size_variation, self.size_variation)
        began = max(stage.due or 0.0, chunk.at)
        await sleep_until(began)
        await stage.send(chunk.data[: self.average_size + variation], began)
        stage.due = max(began, now() - LAG_SECONDS) + self.delay / 1_000_000


class LimitData(Effect):
    """Closes the connection once `bytes` were passed on."""

    bytes: Count = 0

    async def send(self, stage: Stage, chunk: Chunk) -> None:
        """Pass on what is left of the limit, and close if that is no more than *chunk*."""
        left = max(self.bytes - stage.sent, 0)
        if left:
            await stage.send(chunk.data[:left], chunk.at)
        if left <= len(chunk.data):
            stage.sink.finish(End.CLOSE)


class Stall(Effect):
    """Holds all data and the closing until `timeout` is over, or until removed if that is 0.

    Then everything is delivered in order. A sender is made to wait when about half a MB is held.
    """

    timeout: Milliseconds = 0

    async def run(self, stage: Stage) -> None:
        """Hold what comes, then pass everything on."""
        if not self.timeout:
            await forever()
        await stage.wait(self.timeout / 1000)
        await super().run(stage)


EFFECTS: Mapping[str, type[Effect]] = {
    "noop": Effect,
    "latency": Latency,
    "bandwidth": Bandwidth,
    "slow_close": SlowClose,
    "timeout": Timeout,
    "reset_peer": ResetPeer,
    "slicer": Slicer,
    "limit_data": LimitData,
    "stall": Stall,
}
"""By the type of the toxic."""


def now() -> float:
    """Return the time of the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


async def sleep_until(due: float) -> None:
    """Wait until *due*, in seconds of the event loop's clock."""
    if (seconds := due - now()) > 0:
        await asyncio.sleep(seconds)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()
