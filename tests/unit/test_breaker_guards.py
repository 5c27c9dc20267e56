"""The ways to guard work: calls, blocks and decorators."""

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from resilience import CircuitOpenError, ConfigurationError
from resilience.breaker import BreakerPolicy, NoBreaker, State, blocks
from resilience.breaker.keeper import Pass
from tests.unit.breakers import HASTY, Rig, raise_


class AsyncCallable:
    """An object that is called as a coroutine function is."""

    async def __call__(self) -> None:
        """Fail."""
        raise_(ConnectionError("gone"))


async def fail_async() -> None:
    """Fail."""
    raise_(ConnectionError("gone"))


def closes_after(rig: Rig, guarded: Callable[[], object]) -> bool:
    """Tell whether the circuit is still closed once *guarded* has failed often enough."""
    for _ in range(HASTY.minimum_calls):
        with pytest.raises(ConnectionError):
            guarded()
    rig.tell()
    return rig.breaker.state is State.CLOSED


async def block_async(rig: Rig) -> None:
    """Fail in a block."""
    async with rig.breaker:
        raise_(ConnectionError("gone"))


def block(rig: Rig) -> None:
    """Fail in a block."""
    with rig.breaker:
        raise_(ConnectionError("gone"))


@pytest.mark.parametrize(
    "guard",
    [
        lambda rig: rig.breaker.call(raise_, ConnectionError("gone")),
        lambda rig: rig.breaker(raise_)(ConnectionError("gone")),
        lambda rig: rig.breaker(functools.partial(raise_, ConnectionError("gone")))(),
        lambda rig: asyncio.run(rig.breaker.acall(fail_async)),
        lambda rig: asyncio.run(rig.breaker(fail_async)()),
        lambda rig: asyncio.run(rig.breaker(functools.partial(fail_async))()),
        lambda rig: asyncio.run(rig.breaker(AsyncCallable())()),
        lambda rig: asyncio.run(block_async(rig)),
        block,
    ],
    ids=[
        "call",
        "decorated",
        "decorated-partial",
        "acall",
        "decorated-async",
        "decorated-async-partial",
        "decorated-async-object",
        "async-with",
        "with",
    ],
)
def test_every_way_to_guard_counts_and_refuses(guard: Callable[[Rig], object]) -> None:
    """Work that fails opens the circuit, and then is not begun."""
    rig = Rig()

    assert not closes_after(rig, lambda: guard(rig))
    with pytest.raises(CircuitOpenError):
        guard(rig)


def test_call_hands_on_arguments_and_value() -> None:
    """What goes in and what comes out is the caller's business."""
    rig = Rig()

    assert rig.breaker.call(dict, [("a", 1)], function=2, self=3) == {
        "a": 1,
        "function": 2,
        "self": 3,
    }


def test_decorated_function_keeps_its_signature() -> None:
    """Tools that look at a guarded function see the function."""
    rig = Rig()

    @rig.breaker
    def fetch(user: int, *, fresh: bool = False) -> str:
        """Fetch it."""
        return f"{user} {fresh}"

    assert str(inspect.signature(fetch)) == "(user: int, *, fresh: bool = False) -> str"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")
    assert fetch(7, fresh=True) == "7 True"
    assert inspect.iscoroutinefunction(rig.breaker(fail_async))


def test_decorated_method_gets_its_object() -> None:
    """A breaker guards methods as it does functions."""
    rig = Rig()

    class Users:
        """Somebody."""

        name = "users"

        @rig.breaker
        def fetch(self) -> str:
            """Return the name."""
            return self.name

    assert Users().fetch() == "users"


def generator() -> Iterator[int]:
    """Work after the call."""
    yield 1


async def async_generator() -> AsyncIterator[int]:
    """Work after the call."""
    yield 1


class GeneratorCallable:
    """An object that is called as a generator is."""

    def __call__(self) -> Iterator[int]:
        """Work after the call."""
        yield 1


class AsyncGeneratorCallable:
    """An object that is called as an asynchronous generator is."""

    async def __call__(self) -> AsyncIterator[int]:
        """Work after the call."""
        yield 1


@pytest.mark.parametrize(
    "what",
    [generator, async_generator, GeneratorCallable(), AsyncGeneratorCallable(), Rig, 7],
)
def test_decorator_refuses_what_it_cannot_guard(what: Any) -> None:  # noqa: ANN401 - anything
    """Work that is done after the call ended would go unguarded."""
    with pytest.raises(ConfigurationError, match="users"):
        Rig().breaker(what)


@pytest.mark.parametrize("way", ["call", "decorated"])
def test_call_refuses_a_coroutine_that_nobody_would_await(way: str) -> None:
    """A coroutine function in a synchronous call is an error, and counts for nothing."""
    rig = Rig()
    guarded = rig.breaker(lambda _: fail_async()) if way == "decorated" else None

    for _ in range(10):
        with pytest.raises(TypeError, match="acall"):
            guarded(7) if guarded else rig.breaker.call(fail_async)  # type: ignore[unused-coroutine]  # there is none
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_blocks_nest() -> None:
    """Blocks of one breaker and of several, in threads and in loops, end as they began."""
    rig, other = Rig(), Rig(name="orders")

    async def nested() -> None:
        async with rig.breaker, other.breaker, rig.breaker:
            await asyncio.sleep(0)

    async def at_once() -> None:
        await asyncio.gather(*(nested() for _ in range(10)))

    with rig.breaker, other.breaker, rig.breaker:
        asyncio.run(at_once())
        thread = threading.Thread(target=asyncio.run, args=(nested(),))
        thread.start()
        thread.join()
    with pytest.raises(ConnectionError):
        block(rig)

    rig.tell()
    assert rig.breaker.state is State.CLOSED


@pytest.mark.parametrize("way", ["with", "async-with"])
def test_block_has_no_result_to_judge(way: str) -> None:
    """A judge of results is not asked about a block, which has none; so probes can pass."""
    rig = Rig(replace(HASTY, failure_if_result=lambda value: value is None))
    rig.half_open()

    async def block() -> None:
        async with rig.breaker:
            pass

    for _ in range(HASTY.half_open_probes):
        if way == "with":
            with rig.breaker:
                pass
        else:
            asyncio.run(block())

    assert rig.breaker.state is State.CLOSED


def test_blocks_may_overlap() -> None:
    """Generators that guard their work may end in any order, and each counts for its own."""
    rig, other = Rig(), Rig(name="orders")

    def guarded(one: Rig) -> Generator[int, None, None]:
        with one.breaker:
            yield 1

    first, second = guarded(rig), guarded(other)
    next(first)
    next(second)

    assert list(first) == []
    ended = [one.breaker.evidence(0.0) for one in (rig, other)]
    assert [one and one.ok for one in ended] == [1, None]
    assert list(second) == []
    ended = [one.breaker.evidence(0.0) for one in (rig, other)]
    assert [one and one.ok for one in ended] == [None, 1]


def test_block_that_ends_before_those_inside_leaves_them_in_their_order() -> None:
    """Blocks of one breaker that are still open end from the innermost outwards."""
    rig, other = Rig(), Rig(name="orders")
    outer, middle, inner = (Pass(rig.breaker._gate, began) for began in (1.0, 2.0, 3.0))  # noqa: SLF001 - any gate
    blocks.push(other.breaker, outer)
    blocks.push(rig.breaker, middle)
    blocks.push(rig.breaker, inner)

    assert blocks.pop(other.breaker) is outer
    assert [blocks.pop(rig.breaker) for _ in range(3)] == [inner, middle, None]


def test_block_may_end_in_another_context() -> None:
    """A web framework that begins a block in one thread and ends it in another gets no error."""
    rig = Rig()
    contextvars.copy_context().run(rig.breaker.__enter__)

    rig.breaker.__exit__(None, None, None)

    assert not rig.refused()


def test_breaker_that_is_off_lets_everything_through() -> None:
    """A dependency without a breaker has the same face and no effect."""
    off = NoBreaker()

    async def answer() -> int:
        return 7

    with pytest.raises(ConnectionError):
        off.call(raise_, ConnectionError("gone"))
    assert off.call(int, 7) == asyncio.run(off.acall(answer)) == 7
    off.record_failure(ConnectionError("gone"))


def test_refusal_is_the_same_by_value_and_by_exception() -> None:
    """Who asks first gets what a call would raise, and no call is spent on it."""
    rig = Rig(BreakerPolicy(minimum_calls=4, open_seconds=3.0))
    assert rig.breaker.refusal() is None
    rig.open()

    said = rig.breaker.refusal()
    also = asyncio.run(rig.breaker.refusal_async())

    with pytest.raises(CircuitOpenError) as caught:
        rig.breaker.call(str)
    assert said is not None
    assert also is not None
    assert said.args == also.args == caught.value.args
