"""No place of the library degrades in silence: each is listed, with its event or a reason."""

import pytest

from tests.every_event import EVERY
from tests.places import complaints, listed, places, places_in

SOURCE = """
class Cache:
    def read(self):
        try:
            return load()
        except OSError:
            {handled}
"""


def test_every_place_is_listed_and_nothing_else() -> None:
    """A new handler that hides an error, or a new degraded answer, must say what announces it."""
    said = complaints(places(), listed())
    assert not said, "\n".join(["tests/places.toml:", *said, "see python -m tests.places"])


@pytest.mark.parametrize(
    ("handled", "seen"),
    [
        ("pass", True),
        ("return None", True),
        ("return Outcome(value=1, level=Level.STALE)", True),
        ("logger.warning('away')", True),
        ("raise", False),
        ("raise RuntimeError from None", False),
        ("self._announce(lost)", False),
    ],
)
def test_handler_that_hides_an_error_is_found(handled: str, *, seen: bool) -> None:
    """It is, unless it raises or announces."""
    found = places_in(SOURCE.format(handled=handled))

    assert set(found) == ({"Cache.read"} if seen else set())
    if seen:
        at = "a.py", "Cache.read"
        assert complaints({at: found["Cache.read"]}, {})
        assert complaints({at: found["Cache.read"]}, {at: {"because": ""}})
        assert not complaints({at: found["Cache.read"]}, {at: {"because": "it is logged"}})


def test_event_of_another_class_is_noticed() -> None:
    """The list says which event each place makes, so one that no longer does is found."""
    found = places_in("def lose():\n    announce(StoreLost(error=''), listeners)")
    at = "a.py", "lose"

    assert found["lose"].announces == {"StoreLost"}
    assert not complaints({at: found["lose"]}, {at: {"announces": ["StoreLost"]}})
    assert complaints({at: found["lose"]}, {at: {"announces": ["StoreFound"]}})
    assert complaints({}, {at: {"announces": ["StoreLost"]}})


def test_question_for_the_class_of_an_event_makes_none() -> None:
    """Listeners ask for it all the time."""
    source = "def hear(event: StoreLost) -> StoreLost:\n    return isinstance(event, StoreLost)"
    assert not places_in(source)


def test_every_event_is_made_somewhere() -> None:
    """One that nobody makes would be documented and never be seen."""
    made = {name for place in places().values() for name in place.announces}
    assert made == {one.__name__ for one in EVERY}
