"""`celery … resilience proxy`, driven by a client that was written for Toxiproxy."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import toxiproxy
from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from resilience.clock import SystemClock
from resilience.testing.ports import LOCALHOST, free_port, is_free
from resilience.testing.process import ServerProcess
from resilience.testing.valkey import ValkeyProcess

SECONDS = 60.0
COMMAND = [sys.executable, "-m", "celery", "-A", "celery", "resilience", "proxy"]


class Proxy:
    """A running command.

    Attributes:
        port: Of its API.
    """

    def __init__(self, log_path: Path, *options: str) -> None:
        """Start it on a free port."""
        self.port = free_port()
        command = [*COMMAND, "--port", str(self.port), *options]
        self.process = ServerProcess(command, ready="API of Toxiproxy on", log_path=log_path)
        self.process.start()

    def end(self, number: int) -> int:
        """Send a signal, and return the exit code."""
        process = self.process._process  # noqa: SLF001 - its exit code is shown nowhere else
        assert process is not None
        process.send_signal(number)
        return process.wait(SECONDS)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The command, for all tests of the module."""
    proxy = Proxy(tmp_path_factory.mktemp("proxy") / "log")
    yield proxy
    proxy.process.stop()


@pytest.fixture
def client(command: Proxy) -> Iterator[Toxiproxy]:
    """A Toxiproxy client of it; all proxies are deleted afterwards."""
    client = Toxiproxy()
    client.update_api_consumer(LOCALHOST, command.port)
    yield client
    client.destroy_all()


@pytest.fixture
def store(client: Toxiproxy, valkey: ValkeyProcess) -> toxiproxy.Proxy:
    """A proxy in front of Valkey, made by the client."""
    return client.create(upstream=f"{LOCALHOST}:{valkey.port}", name="store")


def connected(proxy: toxiproxy.Proxy) -> redis.Redis:
    """Return a client of the server behind a proxy; it fails instead of connecting again."""
    port = int(proxy.listen.rpartition(":")[2])
    return redis.Redis(port=port, retry=None, socket_timeout=SECONDS, single_connection_client=True)


def ping_seconds(server: redis.Redis) -> float:
    """Return how long an answer takes."""
    clock = SystemClock()
    began = clock.monotonic()
    assert server.ping() is True
    return clock.monotonic() - began


def test_client_creates_finds_and_destroys_proxies(
    client: Toxiproxy, store: toxiproxy.Proxy
) -> None:
    """The answers have all that it reads."""
    assert client.running()
    assert json.loads(client.version()) == {"version": "2.12.0"}
    assert store.enabled
    found = client.get_proxy("store")
    assert (found.listen, found.upstream) == (store.listen, store.upstream)
    with pytest.raises(ProxyExists):
        client.create(upstream=store.upstream, name="store")

    assert client.destroy(store)

    assert client.proxies() == {}
    with pytest.raises(NotFound):
        store.toxics()


def test_client_populates_and_repeats_it_without_harm(
    client: Toxiproxy, valkey: ValkeyProcess
) -> None:
    """What exists with the same addresses stays, with its connections."""
    upstream = f"{LOCALHOST}:{valkey.port}"
    proxies = [
        {"name": name, "upstream": upstream, "listen": f"{LOCALHOST}:{free_port()}"}
        for name in ("one", "two")
    ]

    [one, _] = client.populate(proxies)

    with connected(one) as server:
        assert server.ping()
        assert client.populate(proxies) == []
        assert server.ping()
    proxies[0]["listen"] = f"{LOCALHOST}:{free_port()}"
    assert [proxy.name for proxy in client.populate(proxies)] == ["one"]


def test_client_adds_and_destroys_toxics_of_an_open_connection(store: toxiproxy.Proxy) -> None:
    """Latency comes and goes, judged against the same connection without it."""
    with connected(store) as server:
        control = ping_seconds(server)

        store.add_toxic(type="latency", attributes={"latency": 200, "jitter": 0})

        assert ping_seconds(server) >= max(0.2, control)
        toxic = store.get_toxic("latency_downstream")
        assert (toxic.toxicity, toxic.attributes) == (1.0, {"latency": 200, "jitter": 0})
        assert store.destroy_toxic("latency_downstream")
        assert store.toxics() == {}
        assert server.ping()


def test_client_updates_a_toxic(store: toxiproxy.Proxy) -> None:
    """The client has no method for it, but its API class sends what others send."""
    store.add_toxic(type="latency", attributes={"latency": 3_600_000}, toxicity=0.0)
    with connected(store) as server:
        assert server.ping()

        toxiproxy.api.APIConsumer.post(
            "/proxies/store/toxics/latency_downstream",
            json={"toxicity": 1.0, "attributes": {"latency": 200}},
        )

        assert ping_seconds(server) >= 0.2


def test_client_takes_a_server_down_and_up_again(store: toxiproxy.Proxy) -> None:
    """Connections end, new ones are refused; afterwards the same address works."""
    with connected(store) as server:
        assert server.ping()
        with store.down(), pytest.raises(redis.ConnectionError):
            server.ping()
    with connected(store) as server:
        assert server.ping()


def test_client_resets_everything(client: Toxiproxy, store: toxiproxy.Proxy) -> None:
    """All proxies are enabled, and have no toxics."""
    store.add_toxic(type="timeout", attributes={"timeout": 0})
    store.disable()

    assert client.reset()

    assert client.get_proxy("store").enabled
    assert store.toxics() == {}
    with connected(store) as server:
        assert server.ping()


def test_client_learns_why_a_toxic_is_refused(store: toxiproxy.Proxy) -> None:
    """The status makes it raise its own error, with our text."""
    with pytest.raises(InvalidToxic, match="invalid toxic type"):
        store.add_toxic(type="earthquake")
    store.add_toxic(type="latency")
    with pytest.raises(ProxyExists, match="toxic already exists"):
        store.add_toxic(type="latency")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_ends_at_once_when_asked_to_and_releases_its_ports(
    tmp_path: Path, valkey: ValkeyProcess, number: signal.Signals
) -> None:
    """Also with open connections, of which one is stalled; those end."""
    config, port = tmp_path / "proxies.json", free_port()
    order = {
        "name": "store",
        "listen": f"{LOCALHOST}:{port}",
        "upstream": f"{LOCALHOST}:{valkey.port}",
        "toxics": [{"type": "stall", "stream": "upstream"}],
    }
    config.write_text(json.dumps([order]))
    proxy = Proxy(tmp_path / "log", "--config", str(config))
    try:
        with socket.create_connection((LOCALHOST, port), SECONDS) as held:
            held.sendall(b"PING\r\n")

            assert proxy.end(number) == 0

            assert held.recv(1) == b""
    finally:
        proxy.process.kill()
    assert is_free(port)
    assert is_free(proxy.port)
    assert f"proxy store: {order['listen']} → {order['upstream']}" in proxy.process.log
    assert "Traceback" not in proxy.process.log


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "bad request body", id="no-json"),
        pytest.param('[{"name": "a"}]', "missing required field: upstream at proxy 1", id="field"),
        pytest.param(
            '[{"name": "a", "upstream": "b:1", "toxics": [{"type": "x"}]}]',
            "invalid toxic type",
            id="toxic",
        ),
    ],
)
def test_command_refuses_a_wrong_config_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    """It does not start with half of what was asked for."""
    config = tmp_path / "proxies.json"
    config.write_text(content)

    done = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, "--port", "0", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_command_refuses_a_taken_port_in_one_line() -> None:
    """The message names the address and the mend."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    assert done.returncode == 2
    assert f"Error: listen tcp {LOCALHOST}:{port}: bind: address already in use; " in done.stderr
    assert "choose another port" in done.stderr


def test_command_serves_while_a_client_holds_its_api_open(
    command: Proxy, client: Toxiproxy
) -> None:
    """Two hundred idle connections to the API keep nobody out."""
    idle = [socket.create_connection((LOCALHOST, command.port), SECONDS) for _ in range(200)]
    try:
        assert client.proxies() == {}
        answers: list[object] = []
        asking = [
            threading.Thread(target=lambda: answers.append(client.proxies())) for _ in range(8)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(SECONDS)
        assert answers == [{}] * 8
    finally:
        for connection in idle:
            connection.close()
