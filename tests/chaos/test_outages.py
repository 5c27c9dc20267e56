"""Workers go on when their broker is back, wherever that is, and nobody starts them again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from resilience.testing.plugin import running_valkey
from resilience.testing.rabbitmq import RabbitProcess, running_rabbitmq
from resilience.testing.valkey import ValkeyProcess
from tests.brokers import KINDS, Rabbit, Valkey
from tests.chaos.outages import Place, Site, Verdict
from tests.conformance.store_servers import PASSWORD, PRIMARY, SENTINEL_PASSWORD, Watched

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

AWAY_SECONDS = 6.0
LONG_SECONDS = 45.0
RESUMED_SECONDS = 10.0
FIRE_SECONDS = 1.5
"""A second, and what a busy machine takes to say so."""
CUTS = 15
POOLS = ("threads", "gevent", "solo")

Outage = tuple[Callable[[Place], str], Callable[[Place], None]]
"""The address that is used, and what happens."""
OUTAGES: dict[str, Outage] = {
    "restarted": (lambda place: place.first.url, partial(Place.restart, away_seconds=AWAY_SECONDS)),
    "restarted late": (
        lambda place: place.first.url,
        partial(Place.restart, away_seconds=LONG_SECONDS),
    ),
    "frozen": (lambda place: place.first.url, partial(Place.freeze, away_seconds=AWAY_SECONDS)),
    "frozen long": (
        lambda place: place.first.url,
        partial(Place.freeze, away_seconds=LONG_SECONDS),
    ),
    "black hole": (
        lambda place: place.behind_proxy,
        partial(Place.swallow, away_seconds=AWAY_SECONDS),
    ),
    "black hole, long": (
        lambda place: place.behind_proxy,
        partial(Place.swallow, away_seconds=LONG_SECONDS),
    ),
    "connections forgotten": (lambda place: place.behind_proxy, Place.forget),
    "flushed": (lambda place: place.first.url, Place.flush),
    "alternate": (lambda place: place.both, Place.fail),
    "moved": (lambda place: place.behind_proxy, Place.move),
}
ELSEWHERE = ("alternate", "moved")
FORGETFUL = (*ELSEWHERE, "flushed", "Sentinels")
TABLE: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print all verdicts in the end."""
    yield
    head = (
        "| case | broker | pool | resumed s | all done s | fired | gone | lost | twice | fire s |"
    )
    print("\n", head, "|---" * 10 + "|", *TABLE, sep="\n")  # noqa: T201 - what `make chaos` is for


@pytest.fixture(scope="module")
def rabbits() -> Iterator[list[RabbitProcess]]:
    """Two servers that no other test uses."""
    with running_rabbitmq() as first, running_rabbitmq() as second:
        yield [first, second]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A store that is well."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def place(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Two empty brokers."""
    with ExitStack() as stack:
        if kind == "rabbitmq":
            servers: list[RabbitProcess] = request.getfixturevalue("rabbits")
            name = uuid4().hex
            place = Place(*(Rabbit(server, name=name) for server in servers))
        else:
            new = [stack.enter_context(running_valkey(tmp_path_factory)) for _ in range(2)]
            place = Place(*map(Valkey, new))
        yield place
        place.proxy.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", OUTAGES)
def test_worker_goes_on_when_its_broker_is_back(
    case: str, kind: str, place: Place, store: ValkeyProcess, tmp_path: Path
) -> None:
    """Within ten seconds, in the same process; each job runs, and `fire` is quick throughout."""
    address, strike = OUTAGES[case]
    site = Site(tmp_path, address(place), _store_url(kind, case, place, store))
    with site.working() as worker:
        verdict = site.endure(worker, partial(strike, place), forgets=case in FORGETFUL)
        _assert_went_on(case, kind, "prefork", verdict)
        site.await_answer()
        site.await_settled(place.second if case in ELSEWHERE else place.first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["restarted", "black hole", "connections forgotten", "flushed"])
@pytest.mark.parametrize("pool", POOLS)
def test_worker_of_any_pool_goes_on(
    case: str, kind: str, pool: str, place: Place, store: ValkeyProcess, tmp_path: Path
) -> None:
    """The same."""
    address, strike = OUTAGES[case]
    site = Site(tmp_path, address(place), _store_url(kind, case, place, store))
    with site.working(pool) as worker:
        _assert_went_on(
            case, kind, pool, site.endure(worker, partial(strike, place), forgets=case in FORGETFUL)
        )
        if pool != "solo" or kind == "valkey":
            site.await_settled(place.first)


@pytest.mark.parametrize("kind", KINDS)
def test_greenlets_go_on_when_they_are_cut_off_while_a_job_keeps_them_all(
    kind: str, place: Place, store: ValkeyProcess, tmp_path: Path
) -> None:
    """Again and again: whichever greenlet notices first, the worker consumes again."""
    site = Site(tmp_path, place.behind_proxy, _store_url(kind, "cut", place, store))
    seconds = 0.0
    with site.working("gevent") as worker:
        for number in range(0, 2 * CUTS, 2):
            site.fire("spin", number)
            site.await_begun(number)
            place.proxy.cut()
            site.fire("spin", number + 1)
            seconds = max(seconds, site.await_begun(number + 1))
        assert worker.running
    print(f"| cut off {CUTS} times | {kind} | gevent | {seconds:.1f} |")  # noqa: T201 - as above
    assert seconds <= RESUMED_SECONDS


def test_worker_follows_the_primary(store: ValkeyProcess, tmp_path: Path) -> None:
    """Sentinels make the replica of a killed Redis the primary: publisher and worker go there."""
    with Watched(tmp_path).running() as servers:
        options = {
            "master_name": PRIMARY,
            "sentinel_kwargs": {"password": SENTINEL_PASSWORD},
        }
        password = PASSWORD.replace("@", "%40").replace("/", "%2F")
        url = f"sentinel://:{password}@127.0.0.1:{servers.port}/0"
        site = Site(tmp_path, url, store.url, broker_transport_options=options)
        with site.working() as worker:
            verdict = site.endure(worker, servers.primary.kill, forgets=True)
            _assert_went_on("Sentinels", "valkey", "prefork", verdict)


def _store_url(kind: str, case: str, place: Place, store: ValkeyProcess) -> str:
    """Return where the store is: where the broker is, if that is a Redis and stays what it was."""
    if kind == "rabbitmq" or case in ELSEWHERE or case == "cut":
        return store.url
    return OUTAGES[case][0](place)


def _assert_went_on(case: str, kind: str, pool: str, verdict: Verdict) -> None:
    seconds = f"{verdict.resumed_seconds:.1f} | {verdict.done_seconds:.1f}"
    jobs = f"{verdict.fired} | {verdict.gone} | {verdict.lost} | {verdict.twice}"
    TABLE.append(
        f"| {case} | {kind} | {pool} | {seconds} | {jobs} | {verdict.fire_seconds_max:.1f} |"
    )
    print(TABLE[-1])  # noqa: T201 - also of a run that is cut
    assert not verdict.lost
    assert case in FORGETFUL or not verdict.gone
    assert verdict.resumed_seconds <= RESUMED_SECONDS
    assert verdict.fire_seconds_max <= FIRE_SECONDS
