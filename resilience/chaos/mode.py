"""Random failures of an app's clients and functions, which a seed repeats."""

import copy
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from threading import Lock
from typing import Any, Self

from resilience.chaos.clients import CLIENTS, OWN, is_installed, refused
from resilience.chaos.patches import Place, find_place, full_name, put_check
from resilience.declared import nearest
from resilience.errors import ConfigurationError

RATE = 0.3
SEEDS = 2**32
Target = str | Callable[..., Any]
"""`httpx`, `requests`, `redis`, `sqlalchemy`, `smtplib`; `store` or `ledger`, the library's own; a
dotted path of a callable; or the callable."""
Error = Exception | Callable[[], Exception]


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A call that failed on purpose.

    Attributes:
        target: Name of the client, or full name of the callable.
        call: What was called: request, command, statement.
        error: What was raised.
    """

    target: str
    call: str
    error: Exception


class ChaosMode:
    """Lets a share of all calls of some clients and functions fail, in this process.

    It begins with the `with` block, and everything is restored when that ends. Calls of all threads
    and event loops count. The n-th call of a target fails or not by seed, target and n alone.

    Attributes:
        seed: Repeats the failures.
        injected: What has failed on purpose, in order.
        calls: How many calls there were, by target.
    """

    def __init__(
        self,
        *,
        rate: float = RATE,
        targets: Target | Iterable[Target] | None = None,
        seed: int | None = None,
    ) -> None:
        """Prepare; nothing fails before the `with` block.

        Args:
            rate: Share of calls that fail, in [0, 1].
            targets: What fails; None: all clients that are installed.
            seed: Any whole number; None: a random one.

        Raises:
            ConfigurationError: An argument makes no sense, or a target does not exist.
        """
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            msg = f"seed must be a whole number, got {seed!r}"
            raise ConfigurationError(msg)
        self.seed = secrets.randbelow(SEEDS) if seed is None else seed
        self.injected: list[Injection] = []
        self.calls: Counter[str] = Counter()
        self._rates: dict[str, float | None] = {}
        self._places: dict[str, list[Place]] = {}
        self._errors: dict[str, Callable[[], Exception]] = {}
        self._dice: dict[str, Random] = {}
        self._lock = Lock()
        self._patches: ExitStack | None = None
        self._patched: set[object] = set()
        clients = [one for one in CLIENTS if is_installed(one)]
        self.set(rate=rate, targets=clients if targets is None else targets)

    def __enter__(self) -> Self:
        """Begin."""
        self._patches = ExitStack()
        try:
            self._patch()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Restore everything."""
        self._restore()

    def set(
        self, *, rate: float | None = None, targets: Target | Iterable[Target] | None = None
    ) -> None:
        """Change what fails, from the next call on.

        Args:
            rate: Share of calls that fail, in [0, 1]; None: as before.
            targets: What fails instead of all that did; None: the same.

        Raises:
            ConfigurationError: As when it is made.
        """
        if rate is not None:
            self._rate = _check_rate(rate)
        if targets is not None:
            if isinstance(targets, str) or callable(targets) or not isinstance(targets, Iterable):
                targets = (targets,)
            self._rates = {self._add(one): None for one in targets}
            self._errors = {}
        self._patch()

    def fail(
        self, target: Target, *, error: Error | None = None, rate: float | None = None
    ) -> None:
        """Let *target* fail as well, or in another way.

        Args:
            target: A client or a callable.
            error: An exception, of which each failure gets a copy, or what makes one, such as a
                class; None: that of the client, and of a callable `ConnectionRefusedError`.
            rate: Share of its calls that fail, in [0, 1]; None: the rate of all.

        Raises:
            ConfigurationError: As when it is made, or *error* is no exception and makes none.
        """
        own = None if rate is None else _check_rate(rate)
        make = None if error is None else _maker_of(error)
        name = self._add(target)
        if make is not None:
            self._errors[name] = make
        self._rates[name] = own
        self._patch()

    def stop(self) -> None:
        """Let nothing fail any more, until `set` or `fail` names a target."""
        self._rates = {}

    def summary(self) -> str:
        """Return how many calls of each target failed, as a text."""
        failed = Counter(one.target for one in self.injected)
        counts = [f"{name}: {failed[name]} of {n} calls failed" for name, n in self.calls.items()]
        return "\n".join(counts or ["no call could fail: no target was called"])

    def _add(self, target: Target) -> str:
        """Remember what *target* is, and return its name.

        Raises:
            ConfigurationError: There is no such thing.
        """
        if isinstance(target, str) and "." not in target:
            return _check_client(target)
        if not isinstance(target, str) and not callable(target):
            msg = f"a target must be a client's name, a dotted path or a callable, got {target!r}"
            raise ConfigurationError(msg)
        name = full_name(target)
        self._places.setdefault(name, []).append(find_place(target))
        return name

    def _patch(self) -> None:
        """Put checks into all targets that have none yet, unless nothing shall fail now."""
        if self._patches is None:
            return
        for name in self._rates:
            client = OWN.get(name, name)
            if client in CLIENTS and client not in self._patched:
                self._patched.add(client)
                CLIENTS[client](self._patches, self._hit)
            for place in self._places.get(name, ()):
                key = id(place.owner), place.attribute
                if key not in self._patched:
                    self._patched.add(key)
                    put_check(self._patches, place, self._check_of(name))

    def _restore(self) -> None:
        patches, self._patches = self._patches, None
        self._patched.clear()
        if patches is not None:
            patches.close()

    def _check_of(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: self._hit(name, name, refused)

    def _hit(self, target: str, call: str, make: Callable[[], Exception]) -> None:
        """Count a call of *target*, and let it fail if its turn has come.

        Raises:
            Exception: What *make* returns, or what was set for the target.
        """
        rates = self._rates
        if self._patches is None or target not in rates:
            return  # it is no longer a target, or its check has outlived the block
        with self._lock:
            self.calls[target] += 1
            dice = self._dice.get(target)
            if dice is None:
                dice = self._dice[target] = Random(f"{self.seed}:{target}")  # noqa: S311 - to be repeated
            drawn = dice.random()
        own = rates[target]
        if drawn < (self._rate if own is None else own):
            error = self._errors.get(target, make)()
            self.injected.append(Injection(target=target, call=call, error=error))
            raise error


def _check_rate(rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        msg = f"rate must be a share of calls, in [0, 1], got {rate!r}; 30 % is 0.3"
        raise ConfigurationError(msg)
    return float(rate)


def _check_client(name: str) -> str:
    known = [*CLIENTS, *OWN]
    if name not in known:
        hint = "".join(f"did you mean {near!r}? " for near in nearest(name, known))
        msg = (
            f"{name!r} is no target; {hint}Clients are {', '.join(known)}; "
            "anything else needs a dotted path, such as 'shop.clients.charge'"
        )
        raise ConfigurationError(msg)
    client = OWN.get(name, name)
    if not is_installed(client):
        msg = f"target {name!r} needs {client}, which is not installed: pip install {client}"
        raise ConfigurationError(msg)
    return name


def _maker_of(error: Any) -> Callable[[], Exception]:  # noqa: ANN401 - it is checked here
    def make() -> Exception:
        made: Exception = copy.copy(error) if isinstance(error, Exception) else error()
        return made

    try:
        made: object = make()
    except Exception as why:
        msg = f"error {error!r} cannot be made: {why!r}; give a function that makes it"
        raise ConfigurationError(msg) from why
    if not isinstance(made, Exception):
        msg = f"error must be an exception, or make one, got {error!r}"
        raise ConfigurationError(msg)
    return make
