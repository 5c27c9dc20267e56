"""What is measured of each dependency that a feature needs, against which threshold."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Dependency, Feature, Level, Resilience, Settings, SheddingPolicy
from resilience.breaker import Breaker
from resilience.flags.reports import Report
from resilience.testing.valkey import ValkeyProcess
from resilience.worker.shedding import measure

APPS: list[Celery] = []
WHO: dict[str, str] = {"actor": "ann", "reason": "drill"}


@pytest.fixture
def url(valkey: ValkeyProcess) -> Iterator[str]:
    """Where the store is; apps that meet there are closed afterwards."""
    yield valkey.url
    while APPS:
        app = APPS.pop()
        Resilience.of(app).store.client.close()
        app.close()


def declared(url: str, policy: SheddingPolicy) -> Resilience:
    """Return an app whose features are shed under *policy*."""
    app: Celery = Celery("rules", broker="memory://", set_as_current=False)
    APPS.append(app)
    return Resilience(
        app,
        dependencies=[
            Dependency("search", timeout=4.0, max_queue=100),
            Dependency("unlimited", timeout=None),
            Dependency("unused", max_queue=100),
        ],
        features=[Feature("ranking", level=Level.REDUCED, depends_on=("search", "unlimited"))],
        shedding=policy,
        settings=Settings(store_url=url, namespace=uuid4().hex, store_timeout_seconds=10.0),
    )


def readings(url: str, policy: SheddingPolicy) -> dict[str, tuple[float, float]]:
    """Return what is measured of an app under *policy* by rule, and its threshold."""
    resilience = declared(url, policy)
    report = Report(host="a", load=0.25, waits={"search": {20: 9}}, runs={"search": {20: 9}})
    return {one.rule: (one.measured, one.threshold) for one in measure(resilience, [report])}


def test_each_rule_has_the_threshold_that_the_policy_says(url: str) -> None:
    """Shares count of what the dependency declares, and times in seconds."""
    policy = SheddingPolicy(depth_share=0.7, age_seconds=7.0, p95_share=0.25, load=0.6)

    thresholds = {rule: threshold for rule, (_, threshold) in readings(url, policy).items()}

    assert thresholds == {
        "open:search": 1.0,
        "held:search": 1.0,
        "depth:search": 70 / 100,
        "age:search": 7.0,
        "p95:search": 0.25 * 4.0,
        "open:unlimited": 1.0,
        "held:unlimited": 1.0,
        "age:unlimited": 7.0,
        "load": 0.6,
    }


def test_rule_that_is_left_out_measures_nothing(url: str) -> None:
    """Circuits and orders to hold always count."""
    policy = SheddingPolicy(depth_share=None, age_seconds=None, p95_share=None, load=None)

    assert {rule.partition(":")[0] for rule in readings(url, policy)} == {"open", "held"}


def test_reports_of_workers_are_measured_by_their_own_rules(url: str) -> None:
    """Waits count for the age, runs for the latency, and the host's load for the load."""
    found = readings(url, SheddingPolicy())

    assert found["load"] == (0.25, 0.8)
    assert found["age:search"][0] == found["p95:search"][0] > 5
    assert found["age:unlimited"][0] == 0.0
    assert found["depth:search"] == (0.0, 0.5)


def test_held_dependency_and_open_circuit_are_trouble_and_others_are_none(url: str) -> None:
    """Each is measured as 1 while it is so, which is its threshold, and as 0 if it is not."""
    resilience = declared(url, SheddingPolicy(depth_share=None, age_seconds=None, load=None))
    breaker = resilience.breaker("unlimited")
    assert isinstance(breaker, Breaker)

    def measured() -> dict[str, float]:
        found = {one.rule: one.measured for one in measure(resilience, [])}
        return {rule: found[rule] for rule in found if not rule.startswith("p95")}

    well = dict.fromkeys(["open:search", "held:search", "open:unlimited", "held:unlimited"], 0.0)
    assert measured() == well
    resilience.holds.hold("search", seconds=60.0, **WHO)
    breaker.force_open(seconds=60.0, **WHO)
    assert measured() == well | {"held:search": 1.0, "open:unlimited": 1.0}
    resilience.holds.release("search", **WHO)
    breaker.reset(**WHO)
    assert measured() == well
