"""Many callers, many fan-outs and many parts at once: everybody gets their own answer."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience.partial import PartialResponse
from resilience.tasks import FanOut, PendingResponse
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

LONG = 60.0
THREADS = 8
FAN_OUTS = 16
ON_ONE_LOOP = 30
CALLERS = 100
PARTS = 150


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def numbered(stage: Stage, number: int) -> FanOut:
    """Return a fan-out whose answer belongs to *number* only."""
    return FanOut(
        same=stage.s("echo", number),
        double=stage.s("echo", 2 * number),
        bad=stage.s("fail", str(number)),
    )


def answer_to(number: int) -> PartialResponse:
    """Return what the fan-out of *number* must answer."""
    return PartialResponse(
        data={"same": number, "double": 2 * number},
        missing=["bad"],
        reasons={"bad": "ConnectionError"},
    )


def test_threads_get_their_own_answers(stage: Stage) -> None:
    """Sixteen fan-outs from eight threads of one process do not mix."""

    def ask(number: int) -> PartialResponse:
        return numbered(stage, number).apply_async(budget=LONG).get()

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(ask, range(FAN_OUTS)))

    assert answers == [answer_to(number) for number in range(FAN_OUTS)]


def test_coroutines_of_one_loop_get_their_own_answers(stage: Stage) -> None:
    """Thirty fan-outs are awaited on one event loop, as in a web service."""

    async def ask(number: int) -> PartialResponse:
        pending = await asyncio.to_thread(numbered(stage, number).apply_async, budget=LONG)
        return await pending.aget()

    async def ask_all() -> list[PartialResponse]:
        return await asyncio.gather(*map(ask, range(ON_ONE_LOOP)))

    assert asyncio.run(ask_all()) == [answer_to(number) for number in range(ON_ONE_LOOP)]


def test_all_callers_of_one_fan_out_get_the_same(stage: Stage) -> None:
    """Threads and coroutines that wait for one handle are all woken, and none by mistake."""
    key = new_key()
    pending = FanOut(slow=stage.s("hold", key, 1)).apply_async(budget=LONG)

    def ask(handle: PendingResponse) -> PartialResponse:
        return handle.get()

    async def ask_all() -> list[PartialResponse]:
        return await asyncio.gather(*(pending.aget() for _ in range(CALLERS)))

    with ThreadPoolExecutor(CALLERS + 1) as pool:
        waiting = [pool.submit(ask, pending) for _ in range(CALLERS)]
        on_a_loop = pool.submit(asyncio.run, ask_all())
        stage.await_start(key)
        assert not any(one.done() for one in waiting)
        stage.let_go(key)
        answers = [one.result(SECONDS) for one in waiting] + on_a_loop.result(SECONDS)

    assert answers == [PartialResponse(data={"slow": 1})] * 2 * CALLERS


def test_many_parts_all_arrive(stage: Stage) -> None:
    """The number of parts is limited by nothing but time."""
    fan_out = FanOut(**{f"part{number}": stage.s("echo", number) for number in range(PARTS)})

    response = fan_out.apply_async(budget=LONG).get()

    assert response == PartialResponse(data={f"part{number}": number for number in range(PARTS)})
