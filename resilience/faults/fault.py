"""What a fault does to calls of one dependency."""

import hashlib
import importlib
import random
import sys
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["error", "latency", "hang", "refuse", "execute-then-timeout"]
SECONDS_MAX = 3600.0
"""Longest time that one injection keeps a call."""
ERRORS: Final[Mapping[str, type[Exception]]] = {
    "error": ConnectionError,
    "hang": ConnectionResetError,
    "refuse": ConnectionRefusedError,
    "execute-then-timeout": TimeoutError,
}


class Fault(BaseModel):
    """A fault of one dependency: what happens to a share of its calls.

    Attributes:
        dependency: Whose calls.
        kind: `error` and `refuse` raise *error* in place of the call. `latency` delays the call.
            `hang` keeps the call until its time limit, until the fault ends, or for an hour.
            `execute-then-timeout` makes the call and then raises *error*: the dependency has done
            the work, and the answer is lost.
        rate: Share of the calls, more than 0 and at most 1.
        delay_seconds: Delay of `latency`, at most 3600; with another *distribution* than `fixed`
            the mean of the delays.
        distribution: Of the delays: `fixed`, `uniform` from 0 to twice the mean, or `exponential`.
        error: Dotted name of the exception that is raised, any subclass of Exception. Default:
            ConnectionError for `error`, ConnectionResetError for a `hang` that ends,
            ConnectionRefusedError and TimeoutError for the other kinds.
        seed: Makes the draws of each process repeatable; None: they are random. Processes that
            were forked from one another draw the same.
        share: Share of the workers, more than 0 and at most 1. A worker's pool processes belong to
            it; any other process counts as a worker of its own.

    Raises:
        pydantic.ValidationError: A value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    dependency: Annotated[str, Field(min_length=1, max_length=64)]
    kind: Kind
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    delay_seconds: Annotated[float, Field(ge=0, le=SECONDS_MAX)] = 0.0
    distribution: Literal["fixed", "uniform", "exponential"] = "fixed"
    error: Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z_][\w.]*)?$")] = ""
    seed: int | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _check_delay(self) -> Self:
        if self.kind == "latency" and not self.delay_seconds:
            msg = "a fault of kind 'latency' needs delay_seconds, more than 0"
            raise ValueError(msg)
        if self.kind != "latency" and self.delay_seconds:
            msg = f"delay_seconds is for kind 'latency', not for {self.kind!r}; leave it out"
            raise ValueError(msg)
        return self

    def check_error(self) -> None:
        """Import *error*, so that a typing error is found by who orders the fault.

        Raises:
            ValueError: No such exception exists; the message says how to write one.
        """
        if not self.error:
            return
        module = self.error.rpartition(".")[0] or "builtins"
        try:
            importlib.import_module(module)
        except ImportError as error:
            msg = f"error={self.error!r}: {error}; write it as module.Class"
            raise ValueError(msg) from error
        if self._class() is None:
            msg = f"error={self.error!r} names no subclass of Exception; write it as module.Class"
            raise ValueError(msg)

    def exception(self, text: str) -> Exception:
        """Return the exception that is raised, with *text*.

        Only what this process has imported is used, as the name comes from the store. Code that
        has not imported an exception cannot handle it by name: it gets the default of the kind.
        """
        kind = self._class() or ERRORS.get(self.kind, ConnectionError)
        try:
            return kind(text)
        except Exception:  # noqa: BLE001 - it needs other arguments, such as a request
            made = kind.__new__(kind)
            made.args = (text,)
            return made

    def _class(self) -> type[Exception] | None:
        module, _, name = self.error.rpartition(".")
        found = getattr(sys.modules.get(module or "builtins"), name, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None

    def delay(self, dice: random.Random) -> float:
        """Return how many seconds one call is delayed."""
        mean = self.delay_seconds
        drawn = {
            "fixed": lambda: mean,
            "uniform": lambda: dice.uniform(0.0, 2 * mean),
            "exponential": lambda: dice.expovariate(1 / mean),
        }[self.distribution]()
        return min(drawn, SECONDS_MAX)

    def hits(self, worker: str) -> bool:
        """Tell whether *worker* is among the share of the workers that the fault is for."""
        if self.share >= 1:
            return True
        digest = hashlib.sha256(f"{self!r} {worker}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64
