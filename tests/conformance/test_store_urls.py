"""Every form of the store's URL, on real servers: one, behind TLS, Sentinels, a cluster."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Resilience, Settings, StoreUnavailableError
from resilience.store import Answers, Store
from resilience.store.fanin import FanIn, Slot
from resilience.store.fleet import Exchange, StoreFleet
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.waiting import wait_until
from tests.conformance.asking import circuit, seen, swap, take, window
from tests.conformance.store_servers import (
    PASSWORD,
    QUOTED,
    SECONDS,
    Cluster,
    Watched,
    behind_tls,
    started,
    valkey_with,
)
from tests.unit.black_hole import black_hole
from tests.unit.stopwatch import elapsed

PART = Slot(fan="fan", part="alerts")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the servers' files."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def acl(paths: Path) -> Iterator[str]:
    """A server that knows a user by name."""
    server = valkey_with(paths / "acl")
    with started(server):
        server.client().acl_setuser(
            "worker", enabled=True, passwords=["+" + PASSWORD], keys="*", categories=["+@all"]
        )
        yield f"redis://worker:{QUOTED}@{LOCALHOST}:{server.port}/3"


@pytest.fixture(scope="module")
def tls(paths: Path) -> Iterator[str]:
    """A server behind TLS."""
    server = valkey_with(paths / "tls")
    with started(server), behind_tls(server.port, paths) as url:
        yield url


@pytest.fixture(scope="module")
def sentinel(paths: Path) -> Iterator[str]:
    """A primary that is found through a Sentinel, the second of two in the URL."""
    with Watched(paths / "sentinel").running() as watched:
        yield watched.url(before=f"{LOCALHOST}:{free_port()},", database="/2")


@pytest.fixture(scope="module")
def cluster(paths: Path) -> Iterator[str]:
    """A cluster, of which the URL names two nodes."""
    with Cluster(paths / "cluster").running() as two:
        yield two.url


@pytest.fixture(params=["acl", "tls", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """All of them: what holds for one holds for the others."""
    made: str = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A namespace of its own."""
    made = Store(url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    yield made
    made.client.close()


def test_fleet_meets(store: Store) -> None:
    """Evidence, circuits and permits go through every kind of URL, from threads and loops."""
    fleet = StoreFleet(store)
    ways = (fleet.ask, lambda question: asyncio.run(fleet.ask_async(question)))

    assert swap(ways[0], None, circuit(1))
    assert [window(way, seen(generation=1, ok=2)).calls for way in ways] == [2, 4]
    assert swap(ways[1], circuit(1), circuit(2))
    assert all(take(way, str(number), generation=2) for number, way in enumerate(ways))


def test_scripts_are_loaded_again(store: Store) -> None:
    """A server that forgot the scripts is taught them again, wherever it is."""
    fleet = StoreFleet(store)
    ways = (fleet.ask, lambda question: asyncio.run(fleet.ask_async(question)))

    for number, way in enumerate(ways, start=1):
        store.run(lambda client: client.script_flush())
        assert window(way, seen(ok=1)).calls == number


@pytest.mark.parametrize("way", ["sync", "async"])
def test_fan_out_is_collected(store: Store, way: str) -> None:
    """A caller who blocks on a fan-out wakes up when its last part has come in."""
    fan_in = FanIn(store, Answers(store))
    fan_in.open("fan", [("alerts", True)], budget=SECONDS, memories={})
    other = threading.Thread(target=lambda: fan_in.report(PART, '+"none"', full=True))

    async def wait() -> bool:
        waiting = asyncio.create_task(fan_in.wait_done_async("fan", SECONDS))
        await asyncio.sleep(0)
        other.start()
        return await waiting

    if way == "async":
        assert asyncio.run(wait())
    else:
        other.start()
        assert fan_in.wait_done("fan", SECONDS)
    other.join(SECONDS)

    record = asyncio.run(fan_in.collect_async("fan")) if way == "async" else fan_in.collect("fan")
    assert record is not None
    assert {name: json.loads(text[1:]) for name, text in record.ended.items()} == {"alerts": "none"}


def test_wait_ends_when_nothing_comes(store: Store) -> None:
    """Who waits in vain is told after the seconds it gave, and the store is up."""
    fan_in = FanIn(store, Answers(store))
    fan_in.open("fan", [("alerts", True)], budget=SECONDS, memories={})

    async def wait() -> tuple[bool, str]:
        done = await fan_in.wait_done_async("fan", 0.1)
        return done, await fan_in.finish_async("fan", "deadline")

    assert not fan_in.wait_done("fan", 0.1)
    assert asyncio.run(wait()) == (False, "ended")


def test_answers_are_remembered(store: Store) -> None:
    """Answers are kept and recalled, from threads and loops."""
    answers = Answers(store)
    key = answers.key("popular")

    answers.remember("popular", [1], max_age=60)
    first = answers.recall(key)
    asyncio.run(answers.refresh_async(key, [2], max_age=60))
    second = asyncio.run(answers.recall_async(key))

    assert (first and first.value, second and second.value) == ([1], [2])


def test_user_of_the_url_is_the_one_that_works(acl: str) -> None:
    """The server sees the user, and the database, that the URL names."""
    store = Store(acl, namespace="shop", timeout_seconds=SECONDS)

    assert store.run(lambda client: client.acl_whoami()) == "worker"
    assert int(store.run(lambda client: client.client_info())["db"]) == 3


def test_server_with_an_unknown_certificate_is_no_store(tls: str) -> None:
    """Without its authority's certificate a server is not believed."""
    store = Store(tls.partition("?")[0], namespace="shop", timeout_seconds=SECONDS)

    with pytest.raises(StoreUnavailableError, match="certificate"):
        store.run(lambda client: client.ping())


def answering(ask: Callable[[], object]) -> Callable[[], bool]:
    """Return a question that is true once *ask* is answered."""

    def asked() -> bool:
        try:
            ask()
        except StoreUnavailableError:
            return False
        return True

    return asked


def test_cluster_is_found_behind_tls(tmp_path: Path) -> None:
    """The nodes that are asked and the one that is found are spoken to encrypted."""
    node = valkey_with(
        tmp_path / "node", "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    )
    with started(node), behind_tls(node.port, tmp_path) as tls:
        place, _, query = tls.partition("/0")
        client = node.client()
        client.config_set("cluster-announce-port", place.rpartition(":")[2])
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
        url = place.replace("rediss", "rediss+cluster") + query
        store = Store(url, namespace="shop", timeout_seconds=SECONDS)
        fleet = StoreFleet(store)
        ways = (fleet.ask, lambda question: asyncio.run(fleet.ask_async(question)))

        for way in ways:
            asked = answering(partial(window, way, seen(ok=1)))
            assert wait_until(asked, SECONDS, "the cluster has its slots")
        store.client.close()


@pytest.mark.parametrize("how", ["killed", "demoted"])
def test_store_is_found_again_after_a_failover(tmp_path: Path, how: str) -> None:
    """When another server becomes the primary, the same clients find it, none was told."""
    with Watched(tmp_path).running() as watched, asyncio.Runner() as loop:
        store = Store(watched.url(), namespace="shop", timeout_seconds=1)
        fleet = StoreFleet(store)
        evidence = Exchange(process="one", evidence=[seen(ok=1)])
        ways: list[Callable[[], object]] = [
            lambda: fleet.ask(evidence),
            lambda: loop.run(fleet.ask_async(evidence)),
            lambda: store.wait("XADD", store.key("news"), "*", "a", "b", seconds=1),
            lambda: loop.run(store.wait_async("XADD", store.key("news"), "*", "a", "b", seconds=1)),
        ]
        for way in ways:
            way()

        if how == "killed":
            watched.primary.kill()
        else:
            wait_until(watched.fail_over, SECONDS, "the replica is good enough")
        wait_until(lambda: watched.primary_port() == watched.replica.port, SECONDS, "the failover")
        if how == "demoted":
            watched.demote()

        for way in ways:
            wait_until(answering(way), SECONDS, "the store is found again")
        assert store.run(lambda client: client.info("server"))["tcp_port"] == watched.replica.port
        store.client.close()


def test_store_is_found_again_after_its_slot_has_moved(tmp_path: Path) -> None:
    """A cluster that was resharded is asked again, by threads and by loops that were connected."""
    with Cluster(tmp_path).running() as two, asyncio.Runner() as loop:
        store = Store(two.url, namespace="shop", timeout_seconds=1)
        fleet = StoreFleet(store)
        evidence = Exchange(process="one", evidence=[])
        ways: list[Callable[[], object]] = [
            lambda: fleet.ask(evidence),
            lambda: loop.run(fleet.ask_async(evidence)),
        ]
        for way in ways:
            way()

        two.move(store.key())

        for way in ways:
            with pytest.raises(StoreUnavailableError, match="moved"):
                way()
            wait_until(answering(way), SECONDS, "the store is found again")
        assert store.run(lambda client: client.info("server"))["tcp_port"] == two.nodes[1].port
        store.client.close()


@pytest.mark.parametrize("form", ["sentinel://{}/shop", "redis+cluster://{}"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_caller_waits_for_one_timeout_when_all_hang(form: str, way: str) -> None:
    """However many servers the URL names, a caller waits for one of them only."""
    with black_hole() as hole:
        place = hole.removeprefix("redis://").removesuffix("/0")
        store = Store(form.format(",".join([place] * 10)), namespace="shop")
        refused: list[bool] = []

        def ask() -> object:
            if way == "sync":
                return store.run(lambda client: client.ping())
            return asyncio.run(store.run_async(lambda client: client.ping()))

        assert elapsed(lambda: refused.append(not answering(ask)())) < 0.5
        assert refused == [True]


def test_server_that_hangs_is_asked_last_next_time(sentinel: str) -> None:
    """A Sentinel that hangs costs one wait, then the others are asked first."""
    with black_hole() as hole:
        place = hole.removeprefix("redis://").removesuffix("/0")
        store = Store(sentinel.replace("@", f"@{place},"), namespace="shop")
        ask = answering(lambda: store.run(lambda client: client.ping()))

        assert not ask()
        wait_until(ask, SECONDS, "the store is found")
        store.client.close()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("sentinel://{}/shop", "SENTINEL"),
        ("redis+cluster://{}", "cluster support disabled"),
        ("redis+cluster://" + LOCALHOST + ":9", LOCALHOST + ":9"),
    ],
)
def test_servers_that_do_not_know_are_named(paths: Path, form: str, said: str) -> None:
    """What is no Sentinel, no cluster or not there at all is an unavailable store that says so."""
    with started(plain := valkey_with(paths / uuid4().hex)):
        place = f"{LOCALHOST}:{plain.port}"
        store = Store(form.format(place), namespace="shop", timeout_seconds=1)

        with pytest.raises(StoreUnavailableError, match=said):
            store.run(lambda client: client.ping())


def test_store_is_found_by_its_setting(sentinel: str) -> None:
    """The setting takes every form that the store does."""
    app = Celery("shop", backend="redis://cache", set_as_current=False)
    settings = Settings(store_url=sentinel, store_timeout_seconds=SECONDS)

    store = Resilience(app, dependencies=[], settings=settings).store

    assert store.run(lambda client: client.ping())
    store.client.close()
