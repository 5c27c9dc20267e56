"""Questions to a fleet about one dependency."""

from collections.abc import Callable
from typing import Any

from resilience.store.fleet import (
    EndProbe,
    Evidence,
    Exchange,
    Kept,
    Probes,
    Question,
    Reply,
    Swap,
    TakeProbe,
    Window,
)

NAME = "users"
Ask = Callable[[Question], Any]


def seen(*, generation: int = 0, window_seconds: int = 60, **counts: float) -> Evidence:
    """Return evidence of one dependency."""
    return Evidence(
        name=NAME,
        generation=generation,
        window_seconds=window_seconds,
        **counts,  # type: ignore[arg-type]  # counts are whole, ages are not
    )


def tell(ask: Ask, *evidence: Evidence, process: str = "one", version: str = "") -> Reply:
    """Send evidence, knowing that *version* of the circuits, and return the reply."""
    reply: Reply = ask(Exchange(process=process, evidence=evidence, version=version))
    return reply


def window(ask: Ask, evidence: Evidence, process: str = "one") -> Window:
    """Send evidence and return the window."""
    return tell(ask, evidence, process=process).windows[NAME]


def circuit(generation: int, until: float = 0.0, body: str = "[]") -> Kept:
    """Return a circuit that refuses until then."""
    return Kept(generation=generation, until_ms=round(until * 1000), body=body)


def swap(ask: Ask, expected: Kept | None, new: Kept) -> bool:
    """Swap and tell whether it was done."""
    done: bool = ask(Swap(name=NAME, expected=expected, new=new))
    return done


def take(ask: Ask, owner: str, *, generation: int = 1, seconds: float = 60.0) -> Probes | None:
    """Ask for one of two permits."""
    probes: Probes | None = ask(
        TakeProbe(name=NAME, generation=generation, owner=owner, most=2, seconds=seconds)
    )
    return probes


def end(ask: Ask, owner: str, result: str = "ok", *, generation: int = 1) -> Probes | None:
    """Give a permit back."""
    probes: Probes | None = ask(
        EndProbe(name=NAME, generation=generation, owner=owner, result=result)
    )
    return probes
