"""Readers of one process, of both kinds."""

import pytest

from resilience.consistency import (
    ConsistentSession,
)
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock
from tests.unit.sources import WAYS, AnyReader, Make, Source


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def make(request: pytest.FixtureRequest) -> Make:
    """Both kinds of reader: what holds for one holds for the other."""
    way: Make = request.param
    return way


@pytest.fixture
def primary() -> Source:
    """Where writes go."""
    return Source()


@pytest.fixture
def replica() -> Source:
    """What answers when that is down."""
    return Source()


@pytest.fixture
def clock() -> HandClock:
    """Time for records."""
    return HandClock()


@pytest.fixture
def user() -> ConsistentSession:
    """Who reads and writes."""
    return ConsistentSession("user:7")


@pytest.fixture
def listening() -> Listening:
    """Who hears of stale reads."""
    return Listening()


@pytest.fixture
def reader(
    make: Make, primary: Source, replica: Source, clock: HandClock, listening: Listening
) -> AnyReader:
    """A reader of one process."""
    return make(primary, [replica], name="profiles", clock=clock, listeners=[listening])
