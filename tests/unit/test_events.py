"""Events: who hears of them, and what a line in the log says."""

import dataclasses
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from resilience import Level
from resilience.events import (
    AnswerDegraded,
    Event,
    FallbacksExhausted,
    JobKept,
    JobParked,
    JobRefused,
    ReadFellBack,
    ReadStale,
    StoreFound,
    StoreLost,
    listening,
)
from resilience.events import announce as tell
from resilience.events import log_event as log
from resilience.events.crowds import Crowds
from tests.unit.hand_clock import HandClock

LINE_SECONDS = 1.0

DEGRADED = AnswerDegraded(
    call="shop.recommend",
    dependency="recommendations",
    level=Level.STALE,
    reason="CircuitOpenError",
    error="recommendations was not called",
    source="stale",
    age=41.5,
)


def test_announce_tells_every_listener_in_order() -> None:
    """All listeners hear the same event, the first first."""
    heard: list[tuple[str, Event]] = []

    tell(DEGRADED, [lambda event: heard.append(("a", event)), lambda e: heard.append(("b", e))])

    assert heard == [("a", DEGRADED), ("b", DEGRADED)]


def test_announce_leaves_the_soft_limit_of_the_job_to_it() -> None:
    """It may strike while a listener runs, and must not be lost there."""

    def slow(_: Event) -> None:
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        tell(DEGRADED, [slow])


def test_announce_goes_on_when_a_listener_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that fails is logged with its error; the others hear all the same."""
    heard: list[Event] = []

    def broken(_: Event) -> None:
        msg = "no metrics today"
        raise RuntimeError(msg)

    tell(DEGRADED, [broken, heard.append])

    assert heard == [DEGRADED]
    [record] = caplog.records
    assert record.exc_info is not None
    assert "no metrics today" in caplog.text
    assert "AnswerDegraded" in record.getMessage()


@pytest.mark.parametrize(
    "error",
    [SystemExit("enough"), KeyboardInterrupt(), GeneratorExit(), BaseException("own")],
    ids=lambda error: type(error).__name__,
)
def test_listener_cannot_end_a_thread(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads of the library announce as well: what a listener raises there stays there."""
    heard: list[Event] = []
    thread = threading.Thread(target=tell, args=[DEGRADED, [raising(error), heard.append]])
    thread.start()
    thread.join()

    assert heard == [DEGRADED]
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("name", ["Cut", "GreenletExit", "Timeout"])
def test_end_of_the_job_passes_a_listener_in_any_thread(name: str) -> None:
    """A cut by the budget or by gevent may strike while a listener runs, and is the job's."""
    kind = type(f"Own{name}", (type(name, (BaseException,), {}),), {})
    with ThreadPoolExecutor() as pool, pytest.raises(kind):
        pool.submit(tell, DEGRADED, [raising(kind())]).result()


def test_signal_handler_of_the_main_thread_is_obeyed() -> None:
    """A process that is told to end while a listener runs does end."""
    for kind in (SystemExit, KeyboardInterrupt):
        with pytest.raises(kind):
            tell(DEGRADED, [raising(kind())])


def test_error_of_a_listener_does_not_steer_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    """Its text may be somebody else's: no line of its own, no escapes, not without end."""
    error = RuntimeError("\x1b[2J\nevent=StoreFound\r" + "x" * 100_000)
    tell(DEGRADED, [raising(error)])

    assert "\x1b" not in caplog.text
    assert "\r" not in caplog.text
    assert not re.search("^event=", caplog.text, re.MULTILINE)
    assert "RuntimeError: '\\x1b[2J\\nevent=StoreFound\\rxxx" in caplog.text
    assert len(caplog.text) < 5_000


def raising(error: BaseException) -> Callable[[Event], None]:
    """Return a listener that raises *error*."""

    def listener(_: Event) -> None:
        raise error

    return listener


@pytest.mark.parametrize(
    ("event", "of"),
    [
        (
            JobRefused(task="pay", dependency="a", depth=9, max_queue=9, lane="normal"),
            "dependency",
        ),
        (
            JobParked(task="pay", id="7", dependency="a", seconds=1.0, attempts=1, error="down"),
            "dependency",
        ),
        (JobKept(task="pay", id="7", queue="a", error="refused"), "queue"),
        (ReadStale(source="a", reason="refused", lag_seconds=None), "source"),
        (ReadFellBack(source="a", reason="no replica has caught up"), "source"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_crowd_of_jobs_is_a_line_a_second(
    event: Any,  # noqa: ANN401 - a dataclass
    of: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ten thousand jobs of a storm do not fill a disk; the next line says how many had none."""
    clock = HandClock()
    crowds = Crowds(clock.monotonic)
    elsewhere = dataclasses.replace(event, **{of: "b"})

    told = [crowds.pick(event) for _ in range(10_000)]
    assert told == [0, *([None] * 9_999)]
    assert crowds.pick(elsewhere) == 0
    clock.advance(LINE_SECONDS)
    assert crowds.pick(event) == 9_999
    assert [crowds.pick(DEGRADED) for _ in range(2)] == [0, 0]

    name = uuid4().hex
    with caplog.at_level(logging.INFO, logger="resilience"):
        for _ in range(100):
            log(dataclasses.replace(event, **{of: name}))
    assert caplog.text.count(name) == 1


def test_log_line_reads_well_and_carries_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    """One line a human can read, and the same fields for a formatter that writes JSON."""
    log(DEGRADED)

    [record] = caplog.records
    assert (record.name, record.levelno) == ("resilience", logging.WARNING)
    assert record.getMessage() == (
        "event=AnswerDegraded call=shop.recommend dependency=recommendations level=STALE "
        'reason=CircuitOpenError error="recommendations was not called" source=stale age=41.5'
    )
    named = {"event": "AnswerDegraded", **DEGRADED.details(), "level": "STALE"}
    del named["feature"]
    assert record.event == named  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("event", "severity"),
    [
        (FallbacksExhausted(call="c", dependency="users", reasons={}), logging.ERROR),
        (StoreLost(error="refused"), logging.ERROR),
        (StoreFound(), logging.INFO),
    ],
    ids=lambda value: type(value).__name__,
)
def test_log_line_is_as_severe_as_its_event(
    event: Event, severity: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Losing something is an error, degrading a warning, getting it back is information."""
    with caplog.at_level(logging.INFO, logger="resilience"):
        log(event)

    assert [record.levelno for record in caplog.records] == [severity]


def test_log_line_is_not_written_below_the_loggers_level(caplog: pytest.LogCaptureFixture) -> None:
    """Who sets the logger `resilience` to ERROR hears of no degraded answer."""
    with caplog.at_level(logging.ERROR, logger="resilience"):
        log(DEGRADED)

    assert not caplog.records


def test_event_cannot_be_changed() -> None:
    """A listener cannot alter what the next one hears."""
    with pytest.raises(AttributeError):
        DEGRADED.dependency = "users"  # type: ignore[misc]  # what must not work


def test_listener_of_a_block_hears_all_events_of_the_process() -> None:
    """Those of all threads, whoever else listens, until the block ends; its error harms nobody."""
    heard: list[Event] = []
    own: list[Event] = []

    def broken(_: Event) -> None:
        raise ZeroDivisionError

    with listening(broken), listening(heard.append):
        tell(DEGRADED, ())
        with ThreadPoolExecutor(1) as pool:
            pool.submit(tell, DEGRADED, (own.append,)).result()
    tell(DEGRADED, (own.append,))

    assert (len(heard), len(own)) == (2, 2)
