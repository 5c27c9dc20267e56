"""One direction of a connection, and the toxics that affect it."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from random import Random

from resilience.chaos.proxy.effects import Effect, Stage, now
from resilience.chaos.proxy.pipe import Chunk, End, Pipe
from resilience.chaos.proxy.toxic import Direction, Toxic

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 65_536
NO_LINGER = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which a socket is reset when it is closed."""
NO_EFFECT = Effect()


class Link:
    """A reader, a pipe, stages with a pipe behind each, and a writer."""

    def __init__(
        self, direction: Direction, source: Streams, sink: Streams, random: Random
    ) -> None:
        self._direction = direction
        self._reader = source[0]
        self._writer = sink[1]
        self._transports = (source[1].transport, sink[1].transport)
        self._random = random
        self._head = Pipe()
        self._stages: list[Stage] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        # Memory stays small, and no data is left when the end comes.
        self._writer.transport.set_write_buffer_limits(0)

    def apply(self, toxics: Iterable[Toxic]) -> None:
        """Let exactly those of *toxics* in this direction affect what is not delivered yet.

        What a removed toxic held is delivered, in order. A new toxic comes last. It draws once
        whether it affects this link; updates compare the same draw with the new toxicity.
        """
        self.stop()
        toxics = [toxic for toxic in toxics if toxic.stream is self._direction]
        self._remove_all_but({toxic.name for toxic in toxics})
        for toxic in toxics[len(self._stages) :]:
            # Of its own, so that what other streams draw meanwhile changes nothing for this one.
            random = Random(self._random.getrandbits(64))  # noqa: S311 - no secret
            stage = Stage(toxic.name, random, random.random(), NO_EFFECT, self._head)
            self._stages.append(stage)
        for stage, toxic in zip(self._stages, toxics, strict=True):
            effect = toxic.attributes if stage.draw < toxic.toxicity else NO_EFFECT
            if effect is not stage.effect:
                stage.effect, stage.due = effect, None
        self._start()

    async def run(self) -> None:
        """Read until the stream ends, then wait until the end has been passed on.

        `apply` must have been called.
        """
        reading = asyncio.create_task(self._read())
        try:
            await self._ended.wait()
        finally:
            reading.cancel()

    def stop(self) -> None:
        """Stop where the link stands; `apply` continues from there."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _remove_all_but(self, names: set[str]) -> None:
        kept, source = [], self._head
        for stage in self._stages:
            if stage.name in names:
                kept.append(stage)
                source = stage.sink
                continue
            source.absorb(stage.sink)
            if stage.effect.closes_when_removed:
                source.drop(End.CLOSE)
        self._stages = kept

    def _start(self) -> None:
        source = self._head
        for stage in self._stages:
            stage.source = source
            source.set_capacity(stage.effect.capacity)
            self._tasks.append(asyncio.create_task(stage.effect.run(stage)))
            source = stage.sink
        source.set_capacity(1)
        self._tasks.append(asyncio.create_task(self._write(source)))

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(CHUNK_BYTES):
                await self._head.put(Chunk(memoryview(data), now()))
            self._head.finish(End.EOF)
        except OSError:
            self._head.finish(End.CLOSE)

    async def _write(self, source: Pipe) -> None:
        try:
            while not isinstance(item := await source.peek(), End):
                self._writer.write(item.data)
                source.consume(len(item.data))
                await self._writer.drain()
            await self._writer.drain()  # what was written before a toxic was added or removed
            if item is End.EOF and self._writer.can_write_eof():
                self._writer.write_eof()
        except OSError:
            item = End.CLOSE
        if item is End.CLOSE:
            self._writer.close()
        elif item is End.RESET:
            for transport in self._transports:
                reset(transport)
        self._ended.set()


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection so that its peer gets an error: the RST of TCP."""
    connection = transport.get_extra_info("socket")
    if not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()
