"""What a fault proxy without toxics costs, beside a plain forwarder made of asyncio streams."""

import asyncio
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from benchmarks.figure import Figure, in_turns, median_ms, paired_ratio
from resilience.chaos.proxy import FaultProxy
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.waiting import wait_until

CHUNK = 65_536
SECONDS = 60.0
RATIO_MAX = 1.5
"""Of the time of the plain forwarder."""


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* sends less."""
    size, trips, rounds = (20_000_000, 500, 5) if quick else (100_000_000, 2000, 9)
    with server() as target, plain(target) as theirs, FaultProxy(f"{LOCALHOST}:{target}") as ours:
        upload(ours.port, CHUNK)
        upload(theirs, CHUNK)
        sides = in_turns(
            rounds,
            upload=lambda: upload(ours.port, size),
            upload_plain=lambda: upload(theirs, size),
            trips=lambda: exchange(ours.port, trips),
            trips_plain=lambda: exchange(theirs, trips),
        )
    for name, side in {"upload": "upload", "round trip": "trips"}.items():
        ours_ms, theirs_ms = median_ms(sides[side]), median_ms(sides[f"{side}_plain"])
        yield Figure(
            name=f"fault proxy vs plain forwarder: {name}",
            value=paired_ratio(sides[side], sides[f"{side}_plain"]),
            unit="ratio",
            bound=RATIO_MAX,
            sides={"ours_ms": ours_ms, "theirs_ms": theirs_ms, "bytes": size, "trips": trips},
        )


def upload(port: int, size: int) -> None:
    """Send *size* bytes, and wait until the server has them all."""
    piece = bytes(CHUNK)
    with socket.create_connection((LOCALHOST, port), SECONDS) as client:
        for _ in range(size // CHUNK):
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        while client.recv(CHUNK):
            pass


def exchange(port: int, trips: int) -> None:
    """Send a byte, and wait for the answer, so many times."""
    with socket.create_connection((LOCALHOST, port), SECONDS) as client:
        for _ in range(trips):
            client.sendall(b"x")
            client.recv(1)


@contextmanager
def server() -> Iterator[int]:
    """Run a server that answers short messages, in a process of its own; yield its port."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,))
    process.start()
    try:
        wait_until(lambda: _listens(port), SECONDS, "the server listens")
        yield port
    finally:
        process.kill()
        process.join()


@contextmanager
def plain(target: int) -> Iterator[int]:
    """Run a forwarder to *target* in a thread, as a fault proxy runs; yield its port."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOCALHOST, target)
        await asyncio.gather(copy(reader, back), copy(there, writer))
        writer.close()
        back.close()

    async def main() -> None:
        listener = await asyncio.start_server(forward, LOCALHOST, 0)
        stopped = asyncio.Event()
        started.set_result(
            (listener.sockets[0].getsockname()[1], asyncio.get_running_loop(), stopped)
        )
        await stopped.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    port, loop, stopped = started.result(SECONDS)
    yield port
    loop.call_soon_threadsafe(stopped.set)
    thread.join()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


def _serve(port: int) -> None:
    with socket.create_server((LOCALHOST, port)) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    """Answer a message of one byte; more at once is an upload."""
    with client:
        while message := client.recv(CHUNK):
            if len(message) == 1:
                client.sendall(message)
