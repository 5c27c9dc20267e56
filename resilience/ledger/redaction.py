"""Hiding the values of named arguments in what people see."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"
SHORTEST = 4
"""Shorter values are not looked for in other texts: they are everywhere."""
CREDENTIALS = re.compile(r"(://)[^/\s@]+@")
SUMMARIES = ("argsrepr", "kwargsrepr")
"""Arguments as one text, cut where it got too long: what is left of a value is not found in it."""


def redacted(message: object, errors: Sequence[object], names: Collection[str]) -> tuple[Any, Any]:
    """Return *message* with what is under a key in *names*, at any depth, hidden; and *errors*.

    So are positional arguments: `args` beside `names`, the names of all of them, or None if nobody
    knew those, which hides all of them; and `argsrepr` and `kwargsrepr`, if anything is. Hidden
    values of four or more characters are hidden in all texts of both as well, as they are and as
    Python writes them: an error may quote an argument.
    """
    if not names:
        return message, errors
    found = set(_secrets(message, names))
    long = {text for text in found if len(text) >= SHORTEST}
    long |= {repr(text)[1:-1] for text in long}
    secrets = sorted(long, key=len, reverse=True)  # one may be part of another
    hidden = {*names, *SUMMARIES} if found else names
    return _hide(message, hidden, secrets), _hide(errors, (), secrets)


def hide_in_text(text: str, names: Iterable[str]) -> str:
    """Return *text* without passwords in addresses, and without values that *names* stand before.

    A name stands before its value as `name=value`, `name: value` or `"name": "value"`.
    """
    text = CREDENTIALS.sub(rf"\1{HIDDEN}@", text)
    any_name = "|".join(map(re.escape, names))
    if any_name:
        value = r"\"[^\"]*\"?|'[^']*'?|[^\s,;&)}\]]+"
        text = re.sub(rf"(\b(?:{any_name})[\"']?\s*[=:]\s*)(?:{value})", rf"\1{HIDDEN}", text)
    return text


def _places(value: Mapping[str, Any], names: Collection[str]) -> set[int]:
    """Return the places in `args` of arguments that are to be hidden."""
    positional, args = value.get("names", ()), value.get("args")
    if positional is None and isinstance(args, list):
        return set(range(len(args)))
    if not isinstance(positional, list) or not isinstance(args, list):
        return set()
    return {place for place, name in enumerate(positional[: len(args)]) if name in names}


def _secrets(value: object, names: Collection[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item) if name in names else _secrets(item, names)
        for place in _places(value, names):
            yield from _leaves(value["args"][place])
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, names)


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _hide(value: object, names: Collection[str], secrets: Sequence[str]) -> Any:  # noqa: ANN401 - as given
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, Mapping):
        shown = {
            name: HIDDEN if name in names else _hide(item, names, secrets)
            for name, item in value.items()
        }
        for place in _places(value, names):
            if isinstance(shown["args"], list):  # else it is hidden as a whole
                shown["args"][place] = HIDDEN
        return shown
    if isinstance(value, list):
        return [_hide(item, names, secrets) for item in value]
    return value
