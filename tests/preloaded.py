"""Forks the Python processes that tests start from one that has imported Celery already.

A worker takes 1.3 s of CPU time to start, and a second of that is imports: Celery loads all
commands that are installed beside it, Flower's among them. The tests start hundreds of workers and
commands. So `Popen` asks a preloaded process, which has imported all that, to fork. The fork is a
real process: a child of the tests with its own session, environment, directory and files.

Only `celery`, pytest, web servers and modules of the tests are forked. Workers on gevent and
eventlet start in the usual way, as they patch modules before these are imported. So does whatever
has PRELOADED=0 in its environment: `PRELOADED=0 pytest …` forks nothing.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import inspect
import io
import json
import os
import random
import re
import runpy
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import entry_points
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = str(Path(sys.executable).with_name("celery"))
FORKED = re.compile(r"celery|django|flask|pytest$|tests\.|uvicorn")
"""Names of modules that are forked; the demo starts as its users start it."""
GREENLETS = ("gevent", "eventlet")
MODULES = """
celery.apps.worker celery.backends.redis celery.bin.celery celery.concurrency.prefork
celery.concurrency.solo celery.concurrency.thread celery.events.state celery.worker.autoscale
celery.worker.consumer celery.worker.strategy kombu.transport.pyamqp kombu.transport.redis
pytest redis
resilience.cli.consistency resilience.cli.dead resilience.cli.flags resilience.cli.holds
resilience.cli.ledger resilience.cli.relay resilience.cli.status resilience.cli.topology
resilience.ledger.ledger resilience.tasks resilience.testing.announce sqlalchemy.dialects.sqlite
"""
MODULES_OF_FUNCTIONS = """
psycopg pymysql pytest resilience.databases resilience.ledger.ledger sqlalchemy.dialects.mysql
sqlalchemy.dialects.postgresql sqlalchemy.dialects.sqlite
"""
"""What `FORKSERVER` imports: no function that it runs needs Celery, which would cost 0.8 s."""
READ_AT_START = ("PYTHON", "LD_", "COV")
"""Beginnings of the names of variables that take effect before an interpreter runs its program."""
APPLIED_BY_FORK = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
"""Those among them that `become` applies."""
PR_SET_CHILD_SUBREAPER = 36
LENGTH_BYTES = 8

OrdinaryPopen = subprocess.Popen

FORKSERVER = get_context("forkserver")
"""Tests that run a function in another process take that process from here."""
FORKSERVER.set_forkserver_preload(MODULES_OF_FUNCTIONS.split())


class Popen(OrdinaryPopen[Any]):
    """`subprocess.Popen`, except that it may fork the preloaded process."""

    def _execute_child(self, *values: Any) -> None:  # noqa: ANN401 - as the standard library has it
        ordinary = super()._execute_child  # type: ignore[misc]  # private: starts the child
        given = inspect.signature(ordinary).bind(*values).arguments
        if not _can_be_forked(given):
            ordinary(*values)
            return
        order = {
            "argv": list(map(os.fspath, given["args"])),
            "env": dict(os.environ if given["env"] is None else given["env"]),  # noqa: TID251 - a child's
            "cwd": os.fspath(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
        }
        files = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        files = [standard if file == -1 else file for standard, file in enumerate(files)]
        self.pid = _forked(order, files)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]


def install() -> None:
    """Use `Popen` for whatever this process starts through `subprocess`."""
    subprocess.Popen = Popen  # type: ignore[misc]


def _can_be_forked(given: dict[str, Any]) -> bool:
    """Tell whether a fork with these arguments of `_execute_child` is what `Popen` would start."""
    command, env = given["args"], given["env"] or os.environ  # noqa: TID251 - a child's
    if isinstance(command, str | bytes | os.PathLike) or given["shell"]:
        return False
    words = [os.fspath(word) for word in command]
    module, _ = _module_of(words)
    forked = FORKED.match(module) if module else words[0] == PROGRAM
    # Else pytest would complain that it cannot rewrite a package with a plugin: it is imported.
    loads_plugins = module == "pytest" and not env.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    if not forked or loads_plugins or env.get("PRELOADED") == "0":
        return False
    if given["preexec_fn"] or given["pass_fds"]:
        return False
    early = {name for name in env if name.startswith(READ_AT_START)} - APPLIED_BY_FORK
    if any(env[name] != os.environ.get(name) for name in early):  # noqa: TID251 - as above
        return False
    if any(greenlet in word for word in words for greenlet in GREENLETS):
        return False
    others = set(env.get("PYTHONPATH", "").split(os.pathsep)) - set(sys.path)
    return not any((Path(path) / "celery").is_dir() for path in others)


def _module_of(words: list[str]) -> tuple[str, list[str]]:
    """Return which module a command runs, or "" if none, and the arguments of that."""
    match words:
        case [sys.executable, "-m", module, *arguments]:
            return module, arguments
        case [sys.executable, word, *arguments] if word.startswith("-m"):  # as pytester writes it
            return word.removeprefix("-m"), arguments
    return "", words[1:]


_forking = threading.Lock()
_preloaded: dict[int, socket.socket] = {}
"""Connections to preloaded processes, by the id of the process that asks: a fork needs its own."""


def _forked(order: dict[str, Any], files: list[int]) -> int:
    """Return the id of a process that runs *order* on *files*, a child of this process."""
    body = json.dumps(order).encode()
    with _forking:
        connection = _preloaded.get(os.getpid()) or _preloaded.setdefault(os.getpid(), _start())
        connection.sendall(len(body).to_bytes(LENGTH_BYTES))
        socket.send_fds(connection, [b"f"], files)
        connection.sendall(body)
        reply = _received(connection, LENGTH_BYTES)
    if not reply:
        msg = f"The process of {__file__} that forks for the tests has ended."
        raise RuntimeError(msg)
    return int.from_bytes(reply)


def _start() -> socket.socket:
    # The child's parent ends at once. As a subreaper, this process then becomes its parent.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    ours, theirs = socket.socketpair()
    with theirs:
        process = OrdinaryPopen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # noqa: TID251 - a child's
        )
    owner = os.getpid()

    def end() -> None:
        if os.getpid() == owner:
            ours.close()
            process.wait()

    atexit.register(end)
    return ours


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            return b""
        found += part
    return found


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each order that arrives; return the order in the fork, None when the tests end."""
    while size := int.from_bytes(_received(connection, LENGTH_BYTES)):
        _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        files = array.array("i")
        files.frombytes(ancillary[0][2])
        order: dict[str, Any] = json.loads(_received(connection, size))
        read_end, write_end = os.pipe()
        parent = os.fork()
        if parent == 0:
            child = os.fork()
            if child == 0:
                connection.close()
                os.close(read_end)
                os.close(write_end)
                for standard, file in enumerate(files):
                    os.dup2(file, standard)
                    os.close(file)
                return order
            os.write(write_end, child.to_bytes(LENGTH_BYTES))
            os._exit(0)
        os.waitpid(parent, 0)  # from now on the child is one of the tests' process
        connection.sendall(os.read(read_end, LENGTH_BYTES))
        for file in (*files, read_end, write_end):
            os.close(file)
    return None


def become(order: dict[str, Any]) -> NoReturn:
    """Run *order* as a new interpreter would."""
    if order["session"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()  # noqa: TID251 - the order has its own
    os.environ.update(order["env"])  # noqa: TID251 - as above
    named = order["env"].get("PYTHONPATH", "").split(os.pathsep)
    module, arguments = _module_of(order["argv"])
    first = [order["cwd"] if module else str(Path(PROGRAM).parent), *filter(None, named)]
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    sys.dont_write_bytecode = bool(order["env"].get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = [module or PROGRAM, *arguments]
    random.seed()  # else all forks would draw the same numbers
    sys.stdout = sys.__stdout__ = _standard(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _standard(2)  # type: ignore[misc]
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(PROGRAM, run_name="__main__")
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        _end(ended.code or 0)
    _end(0)


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but do not take apart what was imported: that takes 0.1 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001 - as above
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # it is closed
            stream.flush()
    os._exit(code)


def _standard(file: int) -> io.TextIOWrapper:
    """Open standard output or error as a new interpreter does."""
    if os.environ.get("PYTHONUNBUFFERED"):  # noqa: TID251 - the order's
        return io.TextIOWrapper(io.FileIO(file, "w", closefd=False), write_through=True)
    return open(
        file, "w", buffering=1 if file == 2 else -1, errors="backslashreplace", closefd=False
    )


def _import_all() -> None:
    for name in MODULES.split():
        __import__(name)
    for command in entry_points(group="celery.commands"):
        command.load()
    # Frozen objects are not collected: else each fork spends 0.5 s of CPU time on the imported
    # modules when it exits.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    del sys.path[0]  # the directory of this file
    _import_all()
    order = serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        become(order)
