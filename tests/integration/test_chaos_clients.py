"""Chaos strikes the clients of an app that knows nothing of it, on real servers."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis.asyncio
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from resilience import LedgerUnavailableError, StoreUnavailableError
from resilience.chaos.mode import ChaosMode
from resilience.ledger.ledger import Ledger
from resilience.store import Store
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.postgres import PostgresProcess
from resilience.testing.valkey import ValkeyProcess
from tests.integration.apps.bulletin import Bulletin

PARTS = {"weather", "news", "last", "readers", "mailed"}


class Weather(BaseHTTPRequestHandler):
    """Says that the sun shines."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"sun")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def weather_url() -> Iterator[str]:
    """A real HTTP server."""
    with ThreadingHTTPServer((LOCALHOST, 0), Weather) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{LOCALHOST}:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def mail_address() -> Iterator[tuple[str, int]]:
    """A real SMTP server."""
    server = Controller(Sink(), hostname=LOCALHOST, port=free_port())
    server.start()
    yield server.hostname, server.port
    server.stop()


@pytest.fixture
def bulletin(
    weather_url: str, mail_address: tuple[str, int], valkey: ValkeyProcess, tmp_path: Path
) -> Iterator[Bulletin]:
    """The app on its servers."""
    engine = create_engine(f"sqlite:///{tmp_path / 'readers.sqlite3'}")
    with redis.Redis.from_url(valkey.url) as cache:
        yield Bulletin(weather_url, cache, engine, mail_address)
    engine.dispose()


def test_page_of_an_app_stands_while_a_third_of_all_calls_fails(bulletin: Bulletin) -> None:
    """Each part is missing now and then, no page fails, and all is well again afterwards."""
    assert bulletin.page("Ulm")["missing"] == set()

    with ChaosMode(seed=3) as chaos:
        pages = [bulletin.page(f"city {number}") for number in range(60)]

    missing = [page["missing"] for page in pages]
    assert set().union(*missing) == PARTS
    assert set() in missing
    assert {one.target for one in chaos.injected} == {
        "httpx", "requests", "redis", "sqlalchemy", "smtplib"
    }  # fmt: skip
    assert len(chaos.injected) == sum(map(len, missing))
    assert len(bulletin.unsent) == sum("mailed" in one for one in missing)
    calls = {one.call.partition(" ")[0] for one in chaos.injected}
    assert calls >= {"GET", "pipeline", "SELECT", "connect", "sendmail"}
    assert bulletin.page("Ulm")["missing"] == set()


@pytest.mark.parametrize("seed", [11, 12])
def test_seed_repeats_the_pages(bulletin: Bulletin, seed: int) -> None:
    """What a user of the app saw is seen again."""

    def missing() -> list[object]:
        with ChaosMode(seed=seed):
            return [bulletin.page("Ulm")["missing"] for _ in range(10)]

    bulletin.page("Ulm")
    assert missing() == missing()


def test_clients_of_an_event_loop_fail_as_well(
    weather_url: str, valkey: ValkeyProcess, postgres: PostgresProcess
) -> None:
    """Each with its own error, in the task that called it, and works again afterwards."""

    async def ask() -> list[object]:
        engine = create_async_engine(postgres.url)
        async with httpx.AsyncClient() as http, redis.asyncio.from_url(valkey.url) as cache:

            async def get() -> int:
                return (await http.get(weather_url)).status_code

            async def select() -> object:
                async with engine.connect() as connection:
                    return (await connection.execute(text("SELECT 3"))).scalar_one()

            async def pipeline() -> object:
                async with cache.pipeline() as pipe:
                    return await pipe.set("city", "Ulm").execute()

            calls = (get(), select(), cache.ping(), pipeline())
            answers = await asyncio.gather(*calls, return_exceptions=True)
        await engine.dispose()
        return answers

    async def in_chaos() -> list[object]:
        chaos.set(rate=0)
        with chaos:
            await ask()  # connects
            chaos.set(rate=1)
            return await ask()

    chaos = ChaosMode(seed=1)
    failed = [httpx.ConnectError, OperationalError, redis.ConnectionError, redis.ConnectionError]
    assert list(map(type, asyncio.run(in_chaos()))) == failed
    assert asyncio.run(ask()) == [200, 3, True, [True]]


def test_own_store_fails_only_by_its_name(valkey: ValkeyProcess) -> None:
    """`redis` means the clients of the app, which may use the very same server."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=60)
    with redis.Redis.from_url(valkey.url) as client, closing(store.client):
        with ChaosMode(rate=1) as chaos:
            assert store.run(lambda own: own.ping())
            assert asyncio.run(store.run_async(lambda own: own.ping()))
            with pytest.raises(redis.ConnectionError):
                client.ping()
        assert chaos.calls["redis"] == len(chaos.injected) == 1

        with ChaosMode(rate=1, targets="store") as chaos:
            assert client.ping()
            with pytest.raises(StoreUnavailableError):
                store.run(lambda own: own.ping())
        assert [one.target for one in chaos.injected] == ["store"]


def test_own_ledger_fails_only_by_its_name(tmp_path: Path) -> None:
    """`sqlalchemy` means the engines of the app."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    with closing(ledger):
        with ChaosMode(rate=1, targets="sqlalchemy") as chaos:
            assert ledger.finish(["nothing"]) == 0
        assert chaos.calls == {}
        with (
            ChaosMode(rate=1, targets="ledger") as chaos,
            pytest.raises(LedgerUnavailableError),
        ):
            ledger.finish(["nothing"])
        assert {one.target for one in chaos.injected} == {"ledger"}
