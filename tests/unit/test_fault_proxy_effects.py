"""When and in which pieces toxics pass data on, to the millisecond: on a clock that jumps."""

import asyncio
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.chaos.proxy.effects import EFFECTS, Effect, Stage, now
from resilience.chaos.proxy.pipe import Chunk, End, Pipe
from tests.unit.instant_loop import run_instantly

PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"

Passed = list[tuple[float, bytes | End]]


def passed_by(
    kind: str,
    chunks: list[tuple[float, bytes]],
    *,
    end: float = 0.0,
    seed: int = 1,
    pauses: dict[int, float] | None = None,
    **attributes: Any,  # noqa: ANN401 - as the type has them
) -> Passed:
    """Return what a toxic passes on, and when.

    Args:
        kind: Type of the toxic.
        chunks: Seconds since the chunk before, and data.
        end: Seconds from the last chunk to the end of the stream.
        seed: Of the toxic's randomness.
        pauses: The receiver takes the next piece so many seconds after the piece of that number.
        **attributes: Of the toxic.
    """
    effect = EFFECTS[kind](**attributes)

    async def feed(pipe: Pipe) -> None:
        for after, data in chunks:
            await asyncio.sleep(after)
            await pipe.put(Chunk(memoryview(data), now()))
        await asyncio.sleep(end)
        pipe.finish(End.EOF)

    async def run() -> Passed:
        stage = Stage("toxic", Random(seed), 0.0, effect, Pipe())  # noqa: S311 - no secret
        stage.source.set_capacity(effect.capacity)
        working = [asyncio.create_task(feed(stage.source)), asyncio.create_task(effect.run(stage))]
        passed: Passed = []
        while not isinstance(item := await stage.sink.peek(), End):
            passed.append((round(now(), 3), bytes(item.data)))
            await asyncio.sleep((pauses or {}).get(len(passed), 0.0))
            stage.sink.consume(len(item.data))
        for task in working:
            task.cancel()
        return [*passed, (round(now(), 3), item)]

    return run_instantly(run())


def data_of(passed: Passed) -> bytes:
    """Return all data that was passed on."""
    return b"".join(part for _, part in passed if isinstance(part, bytes))


def test_latency_passes_each_chunk_on_so_long_after_it_came() -> None:
    """Chunks are under way at the same time, and the closing follows the last one at once."""
    passed = passed_by("latency", [(0.0, b"a"), (0.1, b"b"), (1.0, b"c")], latency=500)

    assert passed == [(0.5, b"a"), (0.6, b"b"), (1.6, b"c"), (1.6, End.EOF)]


def test_jitter_varies_the_delay_within_its_bounds_in_both_directions() -> None:
    """Latency 500 ± 100 is between 400 and 600, sometimes below and sometimes above 500."""
    chunks = [(10.0, bytes([i])) for i in range(100)]

    passed = passed_by("latency", chunks, latency=500, jitter=100)

    delays = [when - 10.0 * i for i, (when, _) in enumerate(passed[:-1], 1)]
    assert 0.4 <= min(delays) < 0.45
    assert 0.55 < max(delays) <= 0.6


@given(st.lists(st.tuples(st.floats(0, 0.3), st.binary(min_size=1, max_size=9))), st.integers())
def test_latency_with_jitter_never_changes_the_order(
    chunks: list[tuple[float, bytes]], seed: int
) -> None:
    """It is one TCP stream: a late chunk makes those behind it late as well."""
    passed = passed_by("latency", chunks, seed=seed, latency=100, jitter=200)

    assert data_of(passed) == b"".join(data for _, data in chunks)


def test_bandwidth_passes_on_what_it_carries_in_each_tenth_of_a_second() -> None:
    """1 KB/s is 100 bytes each 100 ms; an idle link saves nothing up."""
    passed = passed_by("bandwidth", [(0.0, bytes(250)), (10.0, bytes(100))], rate=1)

    sizes = [(when, len(part)) for when, part in passed[:-1] if isinstance(part, bytes)]
    assert sizes == [(0.1, 100), (0.2, 100), (0.25, 50), (10.1, 100)]


def test_bandwidth_of_a_slow_receiver_is_not_made_up_for() -> None:
    """A receiver that pauses for 5 s gets no burst of 5 s afterwards."""
    passed = passed_by("bandwidth", [(0.0, bytes(1000))], rate=1, pauses={1: 5.0})

    # Eight pieces of 100 ms wait when the receiver is back, and one is due at once.
    assert passed[-1][0] >= 5.1 + 0.1 * 7


def test_slow_close_delays_only_the_end() -> None:
    """Data passes at once."""
    passed = passed_by("slow_close", [(1.0, b"a")], end=1.0, delay=700)

    assert passed == [(1.0, b"a"), (2.7, End.EOF)]


def test_timeout_closes_so_long_after_it_began_whatever_comes() -> None:
    """Data that keeps coming is dropped, and does not prolong it."""
    passed = passed_by("timeout", [(0.3, b"a"), (0.3, b"b"), (0.3, b"c")], end=9.0, timeout=1000)

    assert passed == [(1.0, End.CLOSE)]


def test_timeout_ends_with_a_sender_that_closes_first() -> None:
    """There is nothing left to wait for."""
    assert passed_by("timeout", [(0.3, b"a")], end=0.1, timeout=1000) == [(0.4, End.CLOSE)]


def test_reset_peer_resets_so_long_after_the_first_data() -> None:
    """None of the data is passed on."""
    passed = passed_by("reset_peer", [(1.0, b"a"), (0.1, b"b")], end=9.0, timeout=500)

    assert passed == [(1.5, End.RESET)]


def test_slicer_makes_pieces_of_its_size_with_its_delay_between_them() -> None:
    """The delay is in microseconds; the last piece is what is left."""
    passed = passed_by("slicer", [(0.0, bytes(range(250)))], average_size=100, delay=50_000)

    assert [(when, len(part)) for when, part in passed[:-1] if isinstance(part, bytes)] == [
        (0.0, 100),
        (0.05, 100),
        (0.1, 50),
    ]


@given(
    st.lists(st.tuples(st.floats(0, 0.01), st.binary(min_size=1, max_size=500)), max_size=5),
    st.integers(1, 50),
    st.integers(0, 49),
    st.integers(),
)
def test_slicer_never_loses_data_and_keeps_to_its_sizes(
    chunks: list[tuple[float, bytes]], average: int, variation: int, seed: int
) -> None:
    """Each piece has average_size ± size_variation bytes, or is what is left of a chunk."""
    variation = min(variation, average - 1)

    passed = passed_by(
        "slicer", chunks, seed=seed, average_size=average, size_variation=variation, delay=10
    )

    assert data_of(passed) == b"".join(data for _, data in chunks)
    sizes = [len(part) for _, part in passed if isinstance(part, bytes)]
    assert all(size <= average + variation for size in sizes)
    assert sum(size < average - variation for size in sizes) <= len(chunks)


def test_delays_below_a_millisecond_add_up() -> None:
    """An event loop waits no shorter than a millisecond; a hundred delays of 50 µs are 5 ms."""
    passed = passed_by("slicer", [(0.0, bytes(100))], average_size=1, delay=50)

    assert passed[-1][0] == pytest.approx(0.005, abs=0.001)


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1), st.integers(0, 100))
def test_limit_data_passes_on_exactly_its_bytes(chunks: list[bytes], limit: int) -> None:
    """Then it closes; a stream that is shorter ends as it does without."""
    sent = b"".join(chunks)

    passed = passed_by("limit_data", [(0.0, chunk) for chunk in chunks], bytes=limit)

    assert data_of(passed) == sent[:limit]
    assert passed[-1][1] is (End.CLOSE if limit <= len(sent) else End.EOF)


def test_stall_passes_all_on_when_its_time_is_up() -> None:
    """In order, the end last; from then on it holds nothing."""
    passed = passed_by("stall", [(0.5, b"a"), (0.0, b"b"), (5.0, b"c")], timeout=2000)

    assert passed == [(2.0, b"a"), (2.0, b"b"), (7.0, b"c"), (7.0, End.EOF)]


def test_effect_without_a_fault_passes_everything_on_at_once() -> None:
    """It takes the place of a toxic that does not affect a link."""
    effect, chunk = Effect(), Chunk(memoryview(b"data"), 0.0)

    async def run() -> tuple[Chunk | End, float]:
        stage = Stage("toxic", Random(1), 0.0, effect, Pipe())  # noqa: S311 - no secret
        await stage.source.put(chunk)
        stage.source.finish(End.CLOSE)
        async with asyncio.timeout(1):
            first = await asyncio.gather(effect.run(stage), _first_of(stage.sink))
        return first[1], now()

    assert run_instantly(run()) == (chunk, 0.0)


async def _first_of(pipe: Pipe) -> Chunk | End:
    """Take the first chunk."""
    item = await pipe.peek()
    if isinstance(item, Chunk):
        pipe.consume(len(item.data))
    return item


def test_page_has_every_type_with_its_attributes_and_their_defaults() -> None:
    """The table in docs/proxy.md is what EFFECTS has."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    described = {
        kind: set(re.findall(r"`(\w+)`[^·]*?, (\w+)", attributes))
        for kind, attributes in rows
        if kind in EFFECTS
    }

    assert described == {
        kind: {
            (name, "required" if field.is_required() else str(field.default))
            for name, field in effect.model_fields.items()
        }
        for kind, effect in EFFECTS.items()
    }
