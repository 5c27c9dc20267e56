"""Health on hosts that several apps share, and what a liveness probe may look at."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker import probe
from tests.brokers import Broker, running_broker
from tests.compatibility.apps import parcels

SECONDS = 120.0
LIMIT_SECONDS = 3.0
OTHER = "tests.integration.apps.health"


class Host:
    """A machine whose workers leave their marks in one directory."""

    def __init__(self, broker_url: str, directory: Path) -> None:
        self.directory = directory
        self.env = {
            "CELERY_BROKER_URL": broker_url,
            "RESILIENCE_HEALTH_SECONDS": str(LIMIT_SECONDS),
            probe.DIRECTORY_VARIABLE: str(directory),
        }

    def probe(self, *words: str) -> tuple[int, str]:
        """Run the probe's script; return its exit code and what it says."""
        done = subprocess.run(  # noqa: S603 - the script itself
            [sys.executable, "-I", probe.__file__, *words],
            env=inherited_env(self.env),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def command(self, *words: str) -> tuple[int, str]:
        """Run `celery -A parcels resilience health`; return as `probe`."""
        command = [sys.executable, "-m", "celery", "-A", parcels.__name__, "resilience", "health"]
        done = subprocess.run(  # noqa: S603 - the project's own command
            [*command, *words],
            env=inherited_env({**self.env, "PYTHONPATH": import_path()}),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def healthy(self, *, live: bool = False) -> bool:
        """Tell whether the probe would end with 0, without a process for each question."""
        return all(one["healthy"] for one in probe.verdicts(self.directory, live=live))

    def await_probe(self, code: int, *words: str) -> str:
        """Wait until the probe ends with *code*; return what it says."""
        found = (-1, "")

        def ends() -> bool:
            nonlocal found
            if self.healthy(live="--live" in words) is not (code == 0):
                return False
            found = self.probe(*words)
            return found[0] == code

        wait_until(ends, SECONDS, f"the probe {words} ends with {code}")
        return found[1]


@pytest.fixture
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Broker]]:
    """Return a host, and a broker that may be stopped."""
    with running_broker(tmp_path_factory) as broker:
        yield Host(broker.url, tmp_path_factory.mktemp("marks")), broker


def test_dead_workers_of_other_apps_do_not_make_an_app_unhealthy(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """They share host, user and directory, and the worker's name; namespaces part them, too."""
    valkey.flush()
    host = Host(valkey.url, tmp_path)
    name = {"hostname": "courier@here", "concurrency": 1, "pool": "solo"}
    elsewhere = {**host.env, "RESILIENCE_NAMESPACE": "elsewhere"}
    with (
        run_worker(OTHER, queues=["mail"], env=host.env, **name) as other,
        run_worker(parcels.__name__, queues=["other"], env=elsewhere, **name) as stranger,
    ):
        host.await_probe(0)
        other.kill()
        stranger.kill()
        with run_worker(parcels.__name__, queues=["courier"], env=host.env, **name) as worker:
            mine = {"app": "parcels", "namespace": "resilience"}
            wait_until(
                lambda: all(one["healthy"] for one in probe.verdicts(tmp_path, **mine)),
                SECONDS,
                "it has a mark",
            )

            assert host.probe()[0] == 1, "without a word on the app all of the host count"
            said = host.command()
            assert said[0] == 0, said
            assert said == host.probe("--app", "parcels", "--namespace", "resilience")
            assert said[1].count("\n") == 1
            worker.kill()
            assert host.probe("--app", "parcels", "--namespace", "resilience")[0] == 1


def test_mark_of_a_dead_worker_expires(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """After an hour it neither counts nor lies about: the next worker removes it."""
    valkey.flush()
    host = Host(valkey.url, tmp_path)
    with run_worker(parcels.__name__, queues=["courier"], env=host.env, pool="solo") as worker:
        host.await_probe(0)
        worker.kill()
    [mark] = tmp_path.glob("*.worker")
    assert "is gone" in host.probe()[1]
    text = mark.read_text()
    written = probe.json.loads(text)
    mark.write_text(
        text.replace(str(written["written_at"]), str(written["written_at"] - probe.FORGET_SECONDS))
    )

    assert "no worker has left a mark" in host.probe()[1]
    with run_worker(parcels.__name__, queues=["courier"], env=host.env, pool="solo") as worker:
        host.await_probe(0)
        assert mark not in list(tmp_path.glob("*.worker"))
        worker.kill()


@pytest.mark.parametrize(
    ("silent", "pool"),
    [
        pytest.param(False, "prefork", id="gone-prefork"),
        pytest.param(True, "threads", id="silent-threads", marks=pytest.mark.long),
        pytest.param(False, "threads", id="gone-threads", marks=pytest.mark.long),
        pytest.param(True, "prefork", id="silent-prefork", marks=pytest.mark.long),
    ],
)
def test_outage_of_the_broker_makes_a_worker_unready_and_leaves_it_alive(
    fragile: tuple[Host, Broker], pool: str, *, silent: bool
) -> None:
    """Kubernetes restarts no worker for it, and sends none as ready."""
    host, broker = fragile
    with run_worker(
        parcels.__name__, queues=["courier"], env=host.env, pool=pool, concurrency=1
    ) as worker:
        host.await_probe(0)
        if silent:
            broker.send_signal(signal.SIGSTOP)
        else:
            broker.stop()
        host.await_probe(1)
        with pytest.raises(AssertionError, match="dead"):
            wait_until(lambda: not host.healthy(live=True), 2.5 * LIMIT_SECONDS, "dead")
        assert host.probe("--live")[0] == 0
        assert host.probe()[0] == 1
        if silent:
            broker.send_signal(signal.SIGCONT)
        worker.kill()
        assert host.probe("--live")[0] == 1


def test_worker_whose_loop_hangs_is_not_alive(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """A restart does help there."""
    valkey.flush()
    host = Host(valkey.url, tmp_path)
    with run_worker(parcels.__name__, queues=["courier"], env=host.env, concurrency=1) as worker:
        host.await_probe(0)
        assert host.probe("--live")[0] == 0
        parcels.app.conf.broker_url = valkey.url
        parcels.app.control.broadcast("hang", arguments={"seconds": 60.0})
        assert "event loop" in host.await_probe(1, "--live")
        worker.kill()
    parcels.app.close()
