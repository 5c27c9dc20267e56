"""Data directories of database servers, made once in a run and copied for each server after that.

`initdb` takes 1.1 s of CPU time and `mariadb-install-db` 0.7 s; a copy takes 0.2 s.
"""

import fcntl
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.postgres import PostgresProcess

POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, bits reversed."""
IDENTIFIER_BYTES = 8
CHECKSUM_BYTES = 4
IN_LOG = 24
"""Where a file of PostgreSQL's log has the identifier of its cluster."""


@contextmanager
def copied_within(folder: Path) -> Iterator[None]:
    """Let all servers of the runners that share *folder* be made from the first of their kind."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for kind, finish in ((PostgresProcess, become_another_cluster), (MariaDbProcess, None)):
            template = folder / kind.__name__
            patch.setattr(kind, "_fill", _copying(kind._fill, template, finish))  # noqa: SLF001
        yield


def _copying(
    fill: Callable[[Any], None], template: Path, finish: Callable[[Path], None] | None
) -> Callable[[Any], None]:
    def copy_or_fill(server: PostgresProcess | MariaDbProcess) -> None:
        data = server._data  # noqa: SLF001 - nothing public says where it is
        with template.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                fill(server)
                unfinished = template.with_suffix(".unfinished")
                _copy(data, unfinished)
                unfinished.rename(template)
                return
        _copy(template, data)
        if finish is not None:
            finish(data)

    return copy_or_fill


def _copy(source: Path, target: Path) -> None:
    # The owner stays the same: for root, another user runs the server.
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)  # noqa: S603, S607 - ours


def become_another_cluster(data: Path) -> None:
    """Give a cluster that was never started an identifier of its own, as `initdb` would.

    Else all servers of a run would be the same cluster, and positions in one would seem to be
    positions in another.
    """
    identifier = secrets.token_bytes(IDENTIFIER_BYTES - 1) + b"\1"
    control = data / "global" / "pg_control"
    content = control.read_bytes()
    # Only zeros follow the checksum of what comes before it.
    end = (len(content.rstrip(b"\0")) - 1) // CHECKSUM_BYTES * CHECKSUM_BYTES
    known, found = (_crc32c(content[:end]), content[end : end + CHECKSUM_BYTES])
    assert found == known, "pg_control ends with its checksum"
    changed = identifier + content[IDENTIFIER_BYTES:end]
    control.write_bytes((changed + _crc32c(changed)).ljust(len(content), b"\0"))
    (log,) = (path for path in (data / "pg_wal").iterdir() if path.is_file())
    with log.open("r+b") as first:
        first.seek(IN_LOG)
        first.write(identifier)


def _crc32c(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(CHECKSUM_BYTES, "little")
