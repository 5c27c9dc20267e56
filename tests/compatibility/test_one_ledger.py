"""All processes of an app keep their jobs in one ledger, and a second one is noticed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience.cli import resilience
from resilience.dependency import Dependency
from resilience.events import Event, SecondLedgerFound
from resilience.ledger import Ledger
from resilience.settings import Settings
from resilience.tasks.ledger_check import LedgerCheck
from resilience.tasks.resilience import Resilience
from resilience.testing import announce
from resilience.testing.process import ServerProcess, import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from tests.compatibility.apps import parcels

pytestmark = pytest.mark.usefixtures("no_ledger_named")

SECONDS = 120.0


class Directories:
    """Processes of one app that are started in different directories, and told of no ledger."""

    def __init__(self, store: ValkeyProcess, home: Path) -> None:
        self.home = home
        self.env = {
            "PYTHONPATH": import_path(),
            "CELERY_BROKER_URL": store.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "2",
        }
        for name in ("workers", "web"):
            (home / name).mkdir()
            ledger = Ledger(f"sqlite:///{self.path(name)}")
            ledger.upgrade()
            ledger.close()

    def path(self, name: str) -> str:
        """Return how messages call the ledger of a directory."""
        return f"{self.home}/{name}/resilience.sqlite3"

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Python with *command* in the directory *name* until it ends."""
        return subprocess.run(  # noqa: S603 - the tests' own words
            [sys.executable, *command],
            cwd=self.home / name,
            env=inherited_env(self.env),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def celery(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the app in the directory *name*."""
        return self.run(name, "-m", "celery", "-A", parcels.__name__, *words)

    def worker(self, name: str) -> ServerProcess:
        """Return a worker in the directory *name*."""
        command = [sys.executable, "-m", "celery", "-A", parcels.__name__, "worker", "-P", "solo"]
        return ServerProcess(
            [*command, "-Q", "courier", "-n", f"{name}@here", "-I", announce.__name__],
            ready=announce.READY,
            log_path=self.home / f"{name}.log",
            env=self.env,
            directory=self.home / name,
        )


def adopted(store: ValkeyProcess, ledger: Path, heard: list[Event]) -> Resilience:
    """Return an adopted app whose ledger is a file."""
    app: Celery = Celery("parcels", broker=store.url, set_as_current=False)
    settings = Settings(ledger_url=f"sqlite:///{ledger}", store_timeout_seconds=5.0)
    return Resilience(
        app, dependencies=[Dependency("courier")], settings=settings, listeners=[heard.append]
    )


def shell(store: ValkeyProcess, ledger: Path) -> Callable[..., Result]:
    """Return what runs commands of an app whose ledger is a file."""
    context = CLIContext(app=adopted(store, ledger, []).app, no_color=True, workdir=None)
    return lambda *words: CliRunner().invoke(resilience, words, obj=context)


@pytest.fixture
def directories(valkey: ValkeyProcess, tmp_path: Path) -> Directories:
    """Two directories, and a store that knows no ledger."""
    valkey.flush()
    return Directories(valkey, tmp_path)


@pytest.fixture
def worker(directories: Directories) -> Iterator[ServerProcess]:
    """A worker in its directory."""
    made = directories.worker("workers")
    made.start()
    assert "not compared" not in made.log_tail()
    yield made
    made.kill()


@pytest.mark.timeout(300)
def test_second_ledger_of_an_app_is_an_error_where_it_starts(
    directories: Directories, worker: ServerProcess
) -> None:
    """A worker and a relay end; the message names both ledgers and the mend."""
    del worker
    commands = [
        ("worker", "-P", "solo", "-Q", "courier", "-n", "web@here"),
        ("resilience", "relay"),
    ]
    with ThreadPoolExecutor() as pool:
        for ended in pool.map(lambda words: directories.celery("web", *words), commands):
            said = ended.stdout + ended.stderr
            assert ended.returncode != 0, said
            for name in ("workers", "web"):
                assert directories.path(name) in said
            assert "RESILIENCE_LEDGER_URL" in said
            assert "ledger accept" in said


@pytest.mark.timeout(300)
def test_publisher_with_a_second_ledger_warns_once(
    directories: Directories, worker: ServerProcess
) -> None:
    """Its jobs are kept, but nobody would publish them; one in the workers' directory is silent."""
    del worker
    web, beside = (directories.run(name, "-m", parcels.__name__) for name in ("web", "workers"))

    assert web.returncode == beside.returncode == 0, web.stderr
    assert web.stderr.count("SecondLedgerFound") == 1
    assert directories.path("workers") in web.stderr
    assert "SecondLedgerFound" not in beside.stderr
    assert "relative" in beside.stderr


def test_ledger_that_was_replaced_on_purpose_can_be_accepted(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """From then on the command line refuses the former one."""
    valkey.flush()
    old, new = (shell(valkey, tmp_path / name) for name in ("old", "new"))
    assert old("ledger", "accept", "--yes").exit_code == 0
    refused = new("dead", "list")
    assert refused.exit_code == 2
    assert all(str(tmp_path / name) in refused.stderr for name in ("old", "new"))
    assert new("ledger", "accept").exit_code == 1, "nobody said yes"
    assert new("dead", "list").exit_code == 2
    assert new("ledger", "accept", "--yes").exit_code == 0

    assert new("dead", "list").exit_code == 0
    assert old("ledger", "status").exit_code == 2


def test_store_that_is_away_stops_nobody(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """Nothing can be compared then; the ledger itself is there."""
    valkey.stop()
    try:
        assert shell(valkey, tmp_path / "ledger")("dead", "list").exit_code == 0
    finally:
        valkey.start()


def test_running_process_finds_a_second_ledger_when_the_store_is_back(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """After the store was flushed or away; it announces it once, and goes on."""
    valkey.flush()
    heard: list[Event] = []
    running = adopted(valkey, tmp_path / "running", heard)
    LedgerCheck.of(running).join()
    valkey.flush()
    other = adopted(valkey, tmp_path / "other", [])
    LedgerCheck.of(other).join()  # it only refers to the app
    check = LedgerCheck(running)
    check.rejoin()
    check.rejoin()

    assert [type(one) for one in heard] == [SecondLedgerFound]
