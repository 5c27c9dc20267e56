"""Fields of events as plain, bounded values, as they leave the process."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, is_dataclass
from itertools import islice
from typing import Final

from resilience.events.base import Event
from resilience.text import HIDDEN, hide_in_text, is_secret

LONGEST: Final = 1000
"""Characters of a text; what is longer is shortened, and says how long it was."""
LONGEST_ITEM: Final = 200
"""Characters of a text in a list or mapping."""
MOST_ITEMS: Final = 50
"""Items of a list or mapping; one more says how many are left out."""
MOST_BITS: Final = 64


def plain_fields(event: Event) -> dict[str, object]:
    """Return the fields of *event* by name, as values that JSON knows."""
    return {name: plain(value) for name, value in event.details().items()}


def plain(value: object, longest: int = LONGEST) -> object:
    """Return *value* as JSON knows it: a level as its number, texts and lists of bounded size.

    Without secrets, which are hidden before a text is shortened.
    """
    if isinstance(value, str):
        return shortened(hide_in_text(value), longest)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return _items(value)
    return shortened(hide_in_text(str(value)), longest)


def _number(value: float) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    bits = int(value).bit_length()
    return int(value) if bits <= MOST_BITS else f"a number of {bits} bits"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return *text*, or its beginning and how long it is."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text)} characters)"


def _items(values: Collection[object]) -> list[object]:
    kept = [plain(value, LONGEST_ITEM) for value in islice(values, MOST_ITEMS)]
    more = len(values) - len(kept)
    return [*kept, f"… {more} more"] if more else kept


def _mapping(values: Mapping[object, object]) -> dict[str, object]:
    first = dict(islice(values.items(), MOST_ITEMS))
    kept = {
        shortened(hide_in_text(str(name)), LONGEST_ITEM): HIDDEN
        if is_secret(name)
        else plain(it, LONGEST_ITEM)
        for name, it in first.items()
    }
    more = len(values) - len(first)
    return {**kept, "…": f"{more} more"} if more else kept
