"""Circuits of real workers: one for all pools, and every end of a call judged right."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded, WorkerLostError

from resilience import CircuitOpenError, Outcome, Resilience
from resilience.breaker import Breaker, State
from resilience.clock import SystemClock
from resilience.store.fleet import Evidence, Exchange, StoreFleet, Window
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import ON_RABBITMQ, running_broker
from tests.integration.apps.breakers import PROBED, app

APP = "tests.integration.apps.breakers"
POOLS = ("prefork", "threads", "solo")
SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Result backend and store of these workers."""
    with running_valkey(tmp_path_factory) as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(POOLS, id="pools"),
        pytest.param((*POOLS, "gevent"), id="and-gevent", marks=pytest.mark.long),
    ],
)
def workers(
    request: pytest.FixtureRequest,
    server: ValkeyProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, WorkerProcess]]:
    """A worker of each pool, each with a queue of its own."""
    env = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
    # A loaded machine may take more than the tenth of a second after which a store is lost.
    env["RESILIENCE_STORE_TIMEOUT_SECONDS"] = "5"
    with ExitStack() as running:
        if ON_RABBITMQ:  # else one server is all, and the store is found at the broker
            env["CELERY_BROKER_URL"] = running.enter_context(running_broker(tmp_path_factory)).url
        app.conf.update(broker_url=env["CELERY_BROKER_URL"], result_backend=server.url)
        running.callback(app.close)
        started = {
            pool: running.enter_context(
                run_worker(APP, queues=[pool], pool=pool, concurrency=2, env=env)
            )
            for pool in request.param
        }
        yield started
        for worker in started.values():
            worker.kill()  # how they shut down is no matter here


def run(task: str, how: str, *, pool: str = "prefork", **options: Any) -> object:  # noqa: ANN401
    """Run *task* in a worker of that pool; return what it returned or raised."""
    result = app.tasks[task].apply_async((how,), queue=pool, **options)
    return result.get(timeout=SECONDS, propagate=False)


def breaker(name: str) -> Breaker:
    """Return this process's breaker, one more of the fleet."""
    found = Resilience.of(app).breaker(name)
    assert isinstance(found, Breaker)
    return found


def window(name: str) -> Window:
    """Return what the fleet has counted, adding nothing."""
    fleet = StoreFleet(Resilience.of(app).store)
    known = breaker(name)
    assert known.state
    generation = known.circuit.generation
    nothing = Evidence(name=name, generation=generation, window_seconds=60)
    counted: Window = fleet.ask(Exchange(process="test", evidence=[nothing])).windows[name]
    return counted


def refused(name: str, how: str = "ok", *, pool: str = "prefork") -> bool:
    """Tell whether a call is refused, as it is a quarter of a second after the fleet agreed."""
    return isinstance(run(name, how, pool=pool), CircuitOpenError)


def opened(workers: Mapping[str, WorkerProcess], name: str) -> int:
    """Return how often workers announced that the circuit opened."""
    line = f"CircuitOpened dependency={name} "
    return sum(worker.log.count(line) for worker in workers.values())


def test_pools_share_one_circuit(workers: Mapping[str, WorkerProcess]) -> None:
    """Four failures in different pools open the circuit for all of them, and that is told once."""
    for pool in (*workers, "prefork")[:4]:
        assert isinstance(run("pools", "fail", pool=pool), ConnectionError)

    for pool in workers:
        wait_until(lambda at=pool: refused("pools", pool=at), SECONDS, f"{pool} refuses")  # type: ignore[misc]  # at is bound
    assert opened(workers, "pools") == 1


def test_control_flow_of_celery_is_no_failure(workers: Mapping[str, WorkerProcess]) -> None:
    """Tasks that retry until they succeed, or are ignored or rejected, open nothing."""
    for _ in range(3):
        assert run("neutral", "retry") == "retry"
        for how in ("ignore", "reject"):
            app.tasks["neutral"].apply_async((how,), queue="prefork")
    assert run("neutral", "ok") == "ok"

    assert run("neutral", "ok") == "ok"
    assert window("neutral").failed == 0
    assert opened(workers, "neutral") == 0


def test_timeout_is_retried_as_declared_and_counted(workers: Mapping[str, WorkerProcess]) -> None:
    """`autoretry_for` sees timeouts; each counts, and a chain answers once retries are used up."""
    assert workers
    assert run("hasty", "hang once") == "hang once"
    full, degraded = run("hasty_degraded", "hang once"), run("hasty_degraded", "hang")

    assert full == Outcome(value="hang once", dependency="hasty")
    assert isinstance(degraded, Outcome)
    assert (degraded.value, degraded.reason) == ("static", "AttemptTimeoutError")
    wait_until(lambda: window("hasty").failed == 4, SECONDS, "four timeouts are counted")


def test_lost_worker_is_counted_by_its_parent(workers: Mapping[str, WorkerProcess]) -> None:
    """Each call that killed its process counts once, as nobody else can say so."""
    assert isinstance(run("lost", "die"), WorkerLostError)
    wait_until(lambda: window("lost").failed == 1, SECONDS, "it is counted")

    assert isinstance(run("lost", "die"), WorkerLostError)
    wait_until(lambda: refused("lost"), SECONDS, "the circuit is open")
    assert opened(workers, "lost") == 1


def test_hard_time_limit_is_counted_by_the_parent(workers: Mapping[str, WorkerProcess]) -> None:
    """A call that is cut by the hard time limit counts, once."""
    assert workers

    assert isinstance(run("limited", "hang", time_limit=1), TimeLimitExceeded)

    wait_until(lambda: window("limited").failed, SECONDS, "it is counted")
    assert run("limited", "ok") == "ok"
    assert window("limited").failed == 1


def test_permit_of_a_killed_prober_is_free_within_its_lease(
    workers: Mapping[str, WorkerProcess],
) -> None:
    """A half-open circuit whose only prober was killed is probed again, and closes."""
    for _ in range(4):
        run("probed", "fail")
    wait_until(lambda: refused("probed", "fail"), SECONDS, "the circuit is open")
    began = 0.0

    def probes() -> int:
        return workers["prefork"].log.count("CircuitHalfOpened dependency=probed ")

    def is_killed() -> bool:
        """Kill a process, which is no prober if it has not heard yet that the circuit is open."""
        nonlocal began
        began, before = SystemClock.monotonic(), probes()
        return not refused("probed", "die") and probes() > before

    wait_until(is_killed, SECONDS, "the prober is killed")

    still_refused = refused("probed")
    # On a busy machine the lease may have ended before the answer came.
    assert still_refused or SystemClock.monotonic() - began > PROBED.probe_seconds
    wait_until(lambda: not refused("probed"), SECONDS, "a probe passes")

    wait_until(lambda: breaker("probed").state is State.CLOSED, SECONDS, "the circuit is closed")


def test_fifty_breakers_of_an_app_share_one_pulse(
    server: ValkeyProcess, workers: Mapping[str, WorkerProcess]
) -> None:
    """Five thousand calls through fifty breakers ask the store as often as those of one would."""
    call_all = app.tasks["tests.integration.apps.breakers.call_all"]
    for pool in workers:
        before = scripts_run(server)

        pulses: int = call_all.apply_async((100,), queue=pool).get(timeout=SECONDS)

        assert pulses < 25, pool
        assert scripts_run(server) - before < 60, pool


def scripts_run(server: ValkeyProcess) -> int:
    """Return how many scripts the server has run."""
    stats = server.client().info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
