"""Hiding the values of named arguments in what people see."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any
from urllib.parse import quote, quote_plus

from resilience.text import HIDDEN, hide_in_text, is_secret

SHORTEST = 4
"""Shorter values are not looked for in other texts: they are everywhere."""
SUMMARIES = ("argsrepr", "kwargsrepr")
"""Arguments as one text, cut where it got too long: what is left of a value is not found in it."""
PAIR = 2
BEFORE: tuple[int, ...] = (0, 1, 3)
"""How many arguments Celery puts before those of a signature: a result, or what an errback gets."""


def redacted(message: object, errors: Sequence[object], names: Collection[str]) -> tuple[Any, Any]:
    """Return *message* with what is under a name in *names*, at any depth, hidden; and *errors*.

    So are positional arguments: `args` beside `names`, the names of all of them, or None if nobody
    knew those, which hides all of them; those of signatures that follow the job, whose names are
    under `following`; and `argsrepr` and `kwargsrepr`, if anything is. Hidden values of four or
    more characters are hidden in all texts of both as well, as they are and as Python, JSON and
    URLs write them, also if they are cut: an error may quote an argument. What else looks like a
    secret in a text is hidden as `hide_in_text` does.
    """
    if not names:
        return message, errors
    view = _View(frozenset(names), message)
    return view.hide(message), view.hide(errors, arguments=False)


class _View:
    """What is hidden in one message and in the errors of its job."""

    def __init__(self, names: frozenset[str], message: object) -> None:
        self._names = names
        following = message.get("following") if isinstance(message, Mapping) else None
        self._following = following if isinstance(following, Mapping) else {}
        found = set(self._secrets(message))
        long = {text for text in found if len(text) >= SHORTEST}
        # One may be part of another.
        self._copies = sorted(set(chain.from_iterable(map(_copies, long))), key=len, reverse=True)
        self._summaries = SUMMARIES if found else ()

    def _places(self, value: Mapping[str, Any]) -> set[int]:
        """Return the places in `args` of arguments that are to be hidden."""
        args, positional, before = value.get("args"), value.get("names", ()), BEFORE[:1]
        if not isinstance(args, list):
            return set()
        if "names" not in value and isinstance(task := value.get("task"), str):
            positional = self._following.get(task)
            before = BEFORE[:1] if value.get("immutable") else BEFORE
        if positional is None:
            return set(range(len(args)))
        if not isinstance(positional, list):
            return set()
        secret = {place for place, name in enumerate(positional) if is_secret(name, self._names)}
        return {
            place
            for place in range(len(args))
            if secret.intersection(place + one for one in before)
        }

    def _secrets(self, value: object) -> Iterator[str]:
        if isinstance(value, Mapping):
            for name, item in value.items():
                hidden = is_secret(name, self._names)
                yield from _leaves(item) if hidden else self._secrets(item)
            for place in self._places(value):
                yield from _leaves(value["args"][place])
        elif isinstance(value, list):
            hidden = _is_pair(value, self._names)
            for item in value[1:] if hidden else value:
                yield from _leaves(item) if hidden else self._secrets(item)

    def hide(self, value: object, *, arguments: bool = True) -> Any:  # noqa: ANN401 - as given
        if isinstance(value, str):
            return hide_in_text(self._without_copies(value), self._names)
        if isinstance(value, Mapping):
            shown = {name: self._item(name, item, arguments) for name, item in value.items()}
            for place in self._places(value) if arguments else ():
                if isinstance(shown["args"], list):  # else it is hidden as a whole
                    shown["args"][place] = HIDDEN
            return shown
        if isinstance(value, list | tuple):
            if arguments and _is_pair(value, self._names):
                return [value[0], HIDDEN]
            return [self.hide(item, arguments=arguments) for item in value]
        return value

    def _item(self, name: str, item: object, arguments: bool) -> Any:  # noqa: ANN401, FBT001 - as `hide`
        if arguments and (is_secret(name, self._names) or name in self._summaries):
            return HIDDEN
        return self.hide(item, arguments=arguments)

    def _without_copies(self, text: str) -> str:
        for copy in self._copies:
            text = text.replace(copy, HIDDEN)
        for copy in self._copies:
            # What a length limit has left of one, at the end or at the beginning.
            if size := _overlap(text, copy):
                text = text[:-size] + HIDDEN
            elif size := _overlap(copy, text):
                text = HIDDEN + text[size:]
        return text


def _overlap(text: str, other: str) -> int:
    """Return how many characters at the end of *text* begin *other*; 0: fewer than SHORTEST."""
    place = other.find(text[-SHORTEST:]) if len(text) >= SHORTEST else -1
    while place >= 0:
        if text.endswith(other[: place + SHORTEST]):
            return place + SHORTEST
        place = other.find(text[-SHORTEST:], place + 1)
    return 0


def _is_pair(value: Sequence[object], names: frozenset[str]) -> bool:
    """Tell whether *value* is a secret name and its value, such as a header."""
    return len(value) == PAIR and is_secret(value[0], names)


def _copies(secret: str) -> Iterator[str]:
    """Yield *secret* as it is, and as Python, JSON and URLs write it."""
    once = json.dumps(secret)[1:-1]
    for text in (secret, once, json.dumps(once)[1:-1]):
        yield text
        for coded in (quote(text, safe="", errors="replace"), quote(text, errors="replace")):
            yield coded
            yield re.sub("%..", lambda found: found[0].lower(), coded)
        yield quote_plus(text, errors="replace")
    yield repr(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
