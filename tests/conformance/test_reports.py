"""Reports of workers in a real store, and which of them leads."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from resilience.flags.reports import JobTimes, Report, host_load, median_load, p95
from resilience.store import Store
from resilience.store.election import Election
from resilience.store.flags import KEY
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker.shedding import p95_reading
from tests.unit.hand_clock import HandClock

JOBS_MIN = 5
WINDOW_SECONDS = 10.0
LEAD_SECONDS = 4.0


@pytest.fixture
def store(valkey: ValkeyProcess) -> Iterator[Store]:
    """A store of the test's own."""
    made = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=1)
    yield made
    made.client.close()


def test_one_worker_leads_and_alone_gets_the_reports(store: Store) -> None:
    """The first that reports, for as long as it goes on; the others learn nothing."""
    one, two = Election(store), Election(store)
    assert one.report("1") == (True, False, (b"1",))
    assert two.report("2") == (False, False, ())
    leads, _, reports = one.report("3")
    assert leads
    assert sorted(reports) == [b"2", b"3"]


def test_another_worker_leads_when_the_leader_is_gone(store: Store) -> None:
    """In time for a takeover within ten seconds; the report of the one that is gone is, too."""
    assert LEAD_SECONDS <= 5
    one, two = Election(store), Election(store)
    one.report("1")
    wait_until(lambda: two.report("2").is_leader, 10, "the second leads")
    assert two.report("2").reports == (b"2",)


def test_worker_learns_whether_the_store_keeps_a_state(store: Store) -> None:
    """Neither none nor one that nobody can read is one."""
    one = Election(store)
    found = []
    for text in (b"", b"{}", b"?|{}", b"5|garbage", b"12|{}"):
        store.client.set(store.key(KEY), text)
        found.append(one.report("1").has_document)
    store.client.delete(store.key(KEY))
    store.client.rpush(store.key(KEY), "12|{}")
    assert [*found, one.report("1").has_document] == [False, False, False, False, True, False]


@pytest.mark.parametrize("name", ["reports", "leader"])
def test_keys_of_another_type_are_replaced(store: Store, name: str) -> None:
    """Nobody else's list keeps the workers from finding a leader."""
    store.client.rpush(store.key(name), "x")
    assert Election(store).report("1").is_leader


def test_tampered_reports_are_left_out(store: Store) -> None:
    """Whatever stands where a report should be, the others count."""
    one = Election(store)
    good = Report(host="a", load=0.5, runs={"search": {3: 2}})
    for number, text in enumerate(["", "x", "99999999999999|{", "99999999999999|[]"]):
        store.client.hset(store.key("reports"), str(number), text)
    for load in ("NaN", "-1", "7", '"x"'):
        text = f'99999999999999|{{"host":"a","load":{load}}}'
        store.client.hset(store.key("reports"), f"load {load}", text)
    for runs in ('{"a":{"500":1}}', '{"a":{"x":1}}', '{"a":{"1":-5}}', '{"a":{"1":1e99}}', "[]"):
        text = f'99999999999999|{{"host":"a","load":0,"runs":{runs}}}'
        store.client.hset(store.key("reports"), f"runs {runs}", text)
    assert Report.all_of(one.report(good.model_dump_json()).reports) == [good]


def test_times_of_a_worker_are_those_of_the_last_seconds() -> None:
    """Two counts of a dependency, to a twentieth; older jobs do not count any more."""
    clock = HandClock()
    times = JobTimes(clock)
    for seconds in [0.1] * 90 + [3.0] * 10:
        times.count("waits", "search", seconds * 2)
        times.count("runs", "search", seconds)
    report = times.report("here")
    assert p95([report.runs], "search")[0] == pytest.approx(3.0, rel=0.05)
    assert p95([report.waits], "search")[0] == pytest.approx(6.0, rel=0.05)
    assert p95([report.runs], "shop") == (0.0, 0)
    clock.advance(WINDOW_SECONDS + 1)
    assert times.report("here").runs == {}


def test_slow_twentieth_does_not_count() -> None:
    """It is what 95 of 100 jobs took, over all workers."""
    fast, slow = {"search": {0: 95}}, {"search": {20: 5}}
    assert p95([fast, slow], "search")[0] < 1.1
    assert p95([fast, slow, slow], "search")[0] > 5
    assert p95([fast, slow, slow], "search")[1] == 105


@pytest.mark.parametrize(("jobs", "sheds"), [(JOBS_MIN - 1, False), (JOBS_MIN, True)])
def test_few_slow_jobs_shed_nothing_and_restore_nothing(jobs: int, *, sheds: bool) -> None:
    """A dependency that is seldom called has no trend; all of its jobs being slow is no health."""
    reading = p95_reading([{"search": {20: jobs}}], "search", "p95:search", 4.0)
    assert (reading.in_trouble, reading.well) == (sheds, False)


def test_latency_is_judged_to_a_twentieth() -> None:
    """Jobs that take 5 % less than the threshold shed nothing, and such that take 5 % more do."""

    def sheds(seconds: float, threshold: float) -> bool:
        times = JobTimes(HandClock())
        for _ in range(JOBS_MIN):
            times.count("runs", "search", seconds)
        runs = times.report("here").runs
        return p95_reading([runs], "search", "p95:search", threshold).in_trouble

    thresholds = [0.05 * 1.03**power for power in range(200)]
    assert [one for one in thresholds if sheds(0.95 * one, one)] == []
    assert [one for one in thresholds if not sheds(1.05 * one, one)] == []


def test_load_is_that_of_the_median_host() -> None:
    """One busy host of three sheds nothing; workers of one host count once."""
    reports = [Report(host=host, load=load) for host, load in (("a", 0.9), ("b", 0.1), ("c", 0.2))]
    assert median_load([*reports, reports[0], reports[0]]) == 0.2
    assert 0 <= host_load() <= 1
