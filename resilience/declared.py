"""What an app declares by name, and errors about names."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic_core import ArgsKwargs

from resilience.errors import ConfigurationError

T = TypeVar("T")

ORDER_SECONDS_MAX = 366 * 86_400.0
"""Longest order. What the store says is in force for longer was not written by this library."""
AHEAD_SECONDS = 60.0
"""Clocks of servers of one store may be so far apart."""
TEXT_MAX = 500
"""Most characters of an actor or a reason, which all processes fetch."""


class Declared(Mapping[str, T]):
    """Things of one kind that an app declares, by name.

    Attributes:
        kind: What an error calls one of them.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._by_name: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """Return the one called *name*.

        Raises:
            KeyError: Nothing declared has that name.
        """
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order declared."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_name)

    def require(self, name: str, *, where: str) -> T:
        """Return the one called *name*.

        Raises:
            ConfigurationError: Nothing has that name; the message says *where* it was used.
        """
        try:
            return self._by_name[name]
        except (KeyError, TypeError):  # the latter for a list, say
            hint = "".join(f"did you mean {near!r}? " for near in nearest(str(name), self))
            known = ", ".join(self) or "none"
            msg = f"{where} names the unknown {self.kind} {name!r}; {hint}declared are: {known}"
            raise ConfigurationError(msg) from None


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the one of *known* that *name* was probably meant to be, or nothing."""
    return difflib.get_close_matches(name, known, n=1)


def name_first(given: Any) -> Any:  # noqa: ANN401 - as pydantic's
    """Let an error of pydantic speak of `name`, not of argument 0."""
    if isinstance(given, ArgsKwargs) and len(given.args) == 1:
        options = given.kwargs or {}
        if "name" not in options:
            return ArgsKwargs((), {**options, "name": given.args[0]})
    return given


def check_order(what: str, actor: object, reason: object, seconds: object = 1.0) -> None:
    """Check that an order has an end, an actor and a reason; *what* begins the error.

    Nothing is known of the types: orders come from people.

    Raises:
        ConfigurationError: *seconds* is not more than 0, or more than a year; nobody or no reason
            is named; or a text is too long or no Unicode.
    """
    if not isinstance(seconds, int | float) or not 0 < seconds <= ORDER_SECONDS_MAX:
        most = f" and at most {ORDER_SECONDS_MAX:.0f}, a year"
        msg = f"{what}: seconds must be more than 0{most}, got {seconds!r}"
        raise ConfigurationError(msg)
    for text in (actor, reason):
        if not isinstance(text, str) or not text.strip():
            msg = f"{what}: say who orders it and why, got {actor!r} and {reason!r}"
            raise ConfigurationError(msg)
        if len(text) > TEXT_MAX or _has_surrogates(text):
            msg = f"{what}: at most {TEXT_MAX} characters of Unicode, got {text[:40]!r}…"
            raise ConfigurationError(msg)


def _has_surrogates(text: str) -> bool:
    """Tell whether *text* holds what was no UTF-8 on a command line."""
    return any("\ud800" <= one <= "\udfff" for one in text)


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Check that *name* is among *known*; *what* begins the error: `No queue is called`.

    Raises:
        ConfigurationError: It is not; the message says which name is meant, and which there are.
    """
    known = list(known)
    if name not in known:
        hint = "".join(f" Did you mean {near!r}?" for near in nearest(name, known))
        msg = f"{what} {name!r}.{hint} Known are: {', '.join(known) or 'none'}."
        raise ConfigurationError(msg)
