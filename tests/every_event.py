"""One event of each class, filled with whatever a test wants to see of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from resilience import events
from resilience.events import Event
from resilience.levels import Level
from resilience.outcome import Hop

MOMENT = 1_700_000_000.5
"""An epoch time."""
MEASURED = 1234.567891
"""A number with more digits than anybody reads."""

EVERY: list[type[Event]] = [
    one
    for name in events.__all__
    if isinstance(one := getattr(events, name), type)
    and issubclass(one, Event)
    and one is not Event
]


def make(kind: type[Event], text: str = "some text") -> Event:
    """Return an event of class *kind*: each of its texts is *text*, and each field has a value."""
    hints = get_type_hints(kind)
    fields = {
        name: MOMENT if name == "until" else filled(hint, text)
        for name, hint in hints.items()
        if get_origin(hint) is not ClassVar
    }
    return kind(**fields)


def filled(hint: Any, text: str) -> Any:  # noqa: ANN401 - any annotation
    """Return a value of the type *hint*."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return (filled(arguments[0], text), filled(arguments[0], text))
    if origin in (Mapping, dict):
        return {text: text}
    if arguments:  # optional
        return filled(arguments[0], text)
    made: dict[Any, Any] = {
        str: text,
        int: 7,
        float: MEASURED,
        bool: True,
        Level: Level.STALE,
        Hop: Hop(text, 0.5, 0.25, MEASURED),
    }
    return made[hint]
