"""What a broker's append-only file says of messages that nobody has any more."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path


def dropped(data_dir: Path, jobs: Collection[str]) -> set[str]:
    """Return those of *jobs* that a worker took off a queue, and was killed before it said so.

    Celery's Redis client takes a message with BRPOP, and notes it as unacknowledged with the next
    command. In between it is nowhere but in that process.
    """
    queues: dict[bytes, list[bytes]] = defaultdict(list)
    gone: set[str] = set()
    for command, *arguments in _commands(data_dir):
        match command.upper(), arguments:
            case b"LPUSH", [queue, *messages]:
                for message in messages:
                    queues[queue].insert(0, message)
            case b"RPUSH", [queue, *messages]:
                queues[queue] += messages
            case b"RPOP", [queue, *_] if queues[queue]:
                gone |= _named(queues[queue].pop(), jobs)
            case b"HSET", [b"unacked", _, message]:
                gone -= _named(message, jobs)
            case _:
                continue
    return gone


def _named(message: bytes, jobs: Collection[str]) -> set[str]:
    return {job for job in jobs if job.encode() in message}


def _commands(data_dir: Path) -> Iterator[list[bytes]]:
    for path in sorted((data_dir / "appendonlydir").glob("*.incr.aof")):
        with path.open("rb") as file:
            while head := file.readline():
                if head.startswith(b"*"):
                    # "$5\r\n" and five bytes and "\r\n", as often as the head says
                    sizes = (int(file.readline()[1:]) for _ in range(int(head[1:])))
                    yield [file.read(size + 2)[:-2] for size in sizes]
