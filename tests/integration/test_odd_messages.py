"""Whatever anybody puts into a queue, on either broker: good jobs run, and no worker ends."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from resilience.testing.waiting import wait_until
from tests.brokers import KINDS
from tests.integration.apps.outside import DONE, ENDED, EVENTS, QUEUE, TAKEN, name_of
from tests.integration.odd_messages import CANARIES, on_rabbitmq, on_redis
from tests.integration.outside_stage import SECONDS, Outside, outside

BATCH = 50
OWN_KEYS = (b"{resilience}:", b"celery-task", b"_kombu", b"unacked", QUEUE.encode())
NOTES = {key.encode() for key in (DONE, ENDED, EVENTS, TAKEN, *CANARIES)}
ENDS = ("JobBuried", "JobUnkept")
"""What is announced of a message that counts as the end of its workers."""


@pytest.fixture(scope="module", params=KINDS)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """A worker on each broker."""
    with outside(request.param, request, tmp_path_factory) as running:
        yield running


def check_batches(stage: Outside, batches: int, good: int) -> None:
    """Deliver so many *batches* of odd messages, and so many *good* jobs of each kind with each."""
    kind = on_redis() if stage.broker.url.startswith("redis") else on_rabbitmq()
    keyspaces = [stage.desk.client()]
    if stage.broker.url.startswith("redis"):
        keyspaces.append(stage.broker.client())  # type: ignore[union-attr]
    for client in keyspaces:
        for key in CANARIES:
            client.set(key, "sings")
    before = [{key: client.dump(key) for key in CANARIES} for client in keyspaces]

    @settings(
        max_examples=batches,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(kind, min_size=BATCH, max_size=BATCH))
    def deliver(odd: Sequence[Any]) -> None:
        check_batch(stage, odd, good)

    deliver()

    assert [{key: client.dump(key) for key in CANARIES} for client in keyspaces] == before
    keys = {key for client in keyspaces for key in client.scan_iter()} - NOTES
    assert [key for key in keys if not key.startswith(OWN_KEYS)] == []
    assert not stage.restarts()


def check_batch(stage: Outside, odd: Sequence[Any], good: int) -> None:
    """Deliver messages between good jobs: each is set aside with a reason, or taken for a job."""
    desk = stage.desk.client()
    for key in (TAKEN, ENDED, EVENTS, DONE):
        desk.delete(key)
    keys = stage.good(good)
    stage.deliver_all(odd)
    keys |= stage.good(good)

    stage.await_done(keys)

    aside: list[Any] = []

    def lost() -> list[Any]:
        aside.extend(stage.take_set_aside())
        known = {one.decode() for one in desk.lrange(TAKEN, 0, -1)}
        known |= {named(one) for one, _ in aside}
        return [one for one in odd if named(one) not in known]

    def all_known() -> bool:
        events = [json.loads(one)["name"] for one in desk.lrange(EVENTS, 0, -1)]
        ended = desk.llen(ENDED) + sum(name in ENDS for name in events)
        return len(lost()) <= ended

    wait_until(all_known, SECONDS, "somebody knows of each message")
    stage.await_end()
    assert all(why["reason"] and why["time"] for _, why in aside)
    assert {desk.lrange(DONE, 0, -1).count(key.encode()) for key in keys} == {1}


def named(message: Any) -> str:  # noqa: ANN401 - of either broker
    """Return the name of a message, see `name_of`."""
    return name_of(message if isinstance(message, bytes) else message.properties["message_id"])


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # it would hide the failure
def test_good_jobs_run_once_among_odd_messages(stage: Outside) -> None:
    """Each odd message is set aside with a reason, or ends as on plain Celery; no other key."""
    check_batches(stage, batches=2, good=2)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # as above
def test_good_jobs_run_once_among_ten_thousand_odd_messages(stage: Outside) -> None:
    """The same with 10,000 odd messages and 1,200 good ones on each broker."""
    check_batches(stage, batches=10_000 // BATCH, good=1)
