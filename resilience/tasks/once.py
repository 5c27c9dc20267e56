"""Runs a job once per key, whoever publishes or delivers it again."""

import functools
import hashlib
import inspect
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from kombu.exceptions import EncodeError

from resilience.budget import current_budget
from resilience.clock import SystemClock
from resilience.errors import (
    AlreadyRunningError,
    ConfigurationError,
    LedgerUnavailableError,
    SchemaError,
)
from resilience.events import JobUnkept
from resilience.ledger import Done, Running
from resilience.tasks.serialization import dumps, loads

if TYPE_CHECKING:
    from resilience.ledger import Claims

LEASE_SECONDS = 10.0
"""So long after its process was killed a job may run again."""
RENEW_SECONDS = 3.0
"""A lease is renewed whenever it is so old; a job that ends before costs no renewal."""
LOOK_SECONDS = 0.05
LOOK_SECONDS_MAX = 0.5
KEY_LENGTH_MAX = 200
_encode: Final = json.JSONEncoder(sort_keys=True).encode

_lost = (LedgerUnavailableError, SchemaError)


def check_key(template: object, parameters: Mapping[str, inspect.Parameter], where: str) -> None:
    """Check that *template* can be filled in from a call with *parameters*.

    Raises:
        ConfigurationError: It cannot; the message says *where* it stands.
    """
    if not isinstance(template, str) or not template:
        msg = (
            f"{where}: idempotency_key must be a text such as 'order:{{order_id}}', "
            f"got {template!r}"
        )
        raise ConfigurationError(msg)
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        msg = f"{where}: idempotency_key {template!r}: {error}"
        raise ConfigurationError(msg) from error
    for name in fields:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            msg = (
                f"{where}: idempotency_key {template!r} names {name!r}, which is no argument of "
                f"the task; it has: {known}"
            )
            raise ConfigurationError(msg)
    if not fields:
        msg = (
            f"{where}: idempotency_key {template!r} is the same for all jobs; name the arguments "
            "that tell them apart, in braces"
        )
        raise ConfigurationError(msg)


def key_of(task: str, template: str, arguments: Mapping[str, Any]) -> str:
    """Return the key of a call of *task* with *arguments*.

    Two calls have the same only if the task and all arguments that the template names are the same,
    in type as well: the text `"1"` is written as `'1'`, and the number as `<1>`.

    Raises:
        ConfigurationError: An argument is a text that cannot be encoded; the message names it.
    """
    key = f"{quote(task, safe='')}:{template.format_map(_Quoted(arguments))}"
    if len(key) > KEY_LENGTH_MAX:
        key = f"{key[:100]}:{hashlib.sha256(key.encode()).hexdigest()}"
    return key


class _Quoted(dict[str, Any]):
    """Arguments as they stand in a key; what the template does not name is not looked at."""

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        if not isinstance(value, str):
            return f"<{quote(_canonical(value), safe='')}>"
        try:
            return f"'{quote(value, safe='')}'"
        except UnicodeEncodeError as error:
            msg = (
                f"argument {name!r} of the idempotency key cannot be encoded: {value!a:.80} "
                "has half of a character; decode it with errors='replace'"
            )
            raise ConfigurationError(msg) from error


def _canonical(value: object) -> str:
    """Return *value* as text that is the same before and after it crossed the broker."""
    if value is None or type(value) in {int, bool, float}:
        return _encode(value)
    try:
        return _encode(json.loads(dumps(value)))
    except EncodeError:  # of another serializer
        return f"{type(value).__qualname__} {value}"


def check_texts(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:  # noqa: ANN401 - a `ResilientTask`
    """Check, before a call of *task* is published, that its idempotency key can be written.

    Raises:
        ConfigurationError: An argument that the key names is a text that cannot be encoded.
    """
    if any(isinstance(it, str) and not it.isascii() for it in (*args, *kwargs.values())):
        with suppress(TypeError):  # arguments that the task does not take: it says so itself
            bound = _signature_of(task.run).bind(*args, **kwargs)
            bound.apply_defaults()
            key_of(str(task.name), task.idempotency_key, bound.arguments)


def call_once(
    task: Any,  # noqa: ANN401 - a `ResilientTask`
    call: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    wait_seconds: float,
) -> Any:  # noqa: ANN401 - what *call* returns
    """Return `call(args, kwargs)`, or what a job of *task* under the same key returned before.

    Args:
        task: With an idempotency key.
        call: Runs the body.
        args: Of the body.
        kwargs: Of the body.
        wait_seconds: How long to wait for another job that runs under the same key.
    """
    resilience, name = task.resilience, str(task.name)
    bound = _signature_of(task.run).bind(*args, **kwargs)
    bound.apply_defaults()
    job = task.request.id or name

    def unrecorded(why: str) -> None:
        resilience.announce(JobUnkept(task=name, id=str(job), error=why))

    return run_once(
        resilience.ledger.claims,
        key_of(name, task.idempotency_key, bound.arguments),
        lambda: call(args, kwargs),
        keep_seconds=task.idempotency_seconds,
        wait_seconds=wait_seconds,
        on_unrecorded=unrecorded,
    )


@functools.lru_cache
def _signature_of(body: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(body)


def run_once(
    claims: "Claims",
    key: str,
    body: Callable[[], Any],
    *,
    keep_seconds: float,
    wait_seconds: float,
    on_unrecorded: Callable[[str], None],
) -> Any:  # noqa: ANN401 - what the body returns
    """Return what *body* returns, or what it returned when it ran under this *key* before.

    While it runs its lease is renewed by a thread. If it fails the key is free again.

    Args:
        claims: Where it is known who runs what.
        key: Of this call.
        body: What runs once.
        keep_seconds: How long its result is known.
        wait_seconds: How long to wait for somebody else who runs it just now.
        on_unrecorded: Told why the result could not be recorded, though it was done.

    Raises:
        AlreadyRunningError: Somebody else still runs it.
        LedgerUnavailableError: Nobody can tell whether it was done.
    """
    owner = uuid.uuid4().hex
    claim = _claim(claims, key, owner, wait_seconds)
    if isinstance(claim, Done):
        return loads(claim.result)
    try:
        renewals.hold(claims, key, owner)
        value = body()
    except BaseException:
        _release(claims, key, owner)
        raise
    finally:
        renewals.drop(owner)
    try:
        if not claims.complete(key, owner=owner, result=dumps(value), keep_seconds=keep_seconds):
            on_unrecorded("its lease ran out while it ran")
    except _lost as error:
        on_unrecorded(str(error))
    return value


def _claim(claims: "Claims", key: str, owner: str, wait_seconds: float) -> object:
    budget = current_budget()
    wait_seconds = wait_seconds if budget is None else min(wait_seconds, budget.remaining())
    until, pause = SystemClock.monotonic() + wait_seconds, LOOK_SECONDS
    while True:
        claim = claims.claim(key, owner=owner, lease_seconds=LEASE_SECONDS)
        if not isinstance(claim, Running):
            return claim
        left = until - SystemClock.monotonic()
        if left <= 0:
            raise AlreadyRunningError(key, max(claim.seconds, LOOK_SECONDS))
        threading.Event().wait(min(pause, left))
        pause = min(2 * pause, LOOK_SECONDS_MAX)


def _release(claims: "Claims", key: str, owner: str) -> None:
    try:
        claims.release(key, owner=owner)
    except _lost:
        return  # its lease runs out


@dataclass(slots=True, eq=False)
class _Lease:
    """What a running job holds, until it is renewed at *due*, in seconds of the monotonic clock."""

    claims: "Claims"
    key: str
    owner: str
    due: float


class Renewals:
    """One thread per process, which renews the leases of jobs that run for long in it."""

    def __init__(self) -> None:
        """Start with nothing; the thread starts with the first lease."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Lease] = {}
        self._thread: threading.Thread | None = None
        self._timer = threading.Event()  # nobody sets it

    def hold(self, claims: "Claims", key: str, owner: str) -> None:
        """Renew the lease of *owner*, who has just claimed *key*, from now on."""
        self._held[owner] = _Lease(claims, key, owner, SystemClock.monotonic() + RENEW_SECONDS)
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def drop(self, owner: str) -> None:
        """Renew it no longer."""
        self._held.pop(owner, None)

    def renew_due(self) -> float:
        """Renew what is due; return in how many seconds something may be due again."""
        for lease in list(self._held.values()):
            if lease.due <= SystemClock.monotonic():
                with suppress(*_lost):  # another look before the lease runs out
                    lease.claims.renew(lease.key, owner=lease.owner, lease_seconds=LEASE_SECONDS)
                lease.due = SystemClock.monotonic() + RENEW_SECONDS
        now = SystemClock.monotonic()
        # A lease that comes meanwhile is due later than all of these.
        dues = [lease.due for lease in list(self._held.values())]
        return max(0.0, min(dues, default=now + RENEW_SECONDS) - now)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="renewals", daemon=True)
                with suppress(RuntimeError):  # there is none to be had; the next job tries again
                    self._thread.start()

    def _serve(self) -> None:
        pause = RENEW_SECONDS
        while not self._timer.wait(pause):
            pause = self.renew_due()


renewals = Renewals()
"""Those of this process."""
