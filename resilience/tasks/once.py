"""Runs a job once per key, whoever publishes or delivers it again."""

import hashlib
import inspect
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from string import Formatter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

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
LOOK_SECONDS = 0.05
LOOK_SECONDS_MAX = 0.5
KEY_LENGTH_MAX = 200

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

    Two calls have the same only if the task and all arguments that the template names are the same.
    """
    quoted = {name: quote(str(value), safe="") for name, value in arguments.items()}
    key = f"{task}:{template.format_map(quoted)}"
    if len(key) > KEY_LENGTH_MAX:
        key = f"{key[:100]}:{hashlib.sha256(key.encode()).hexdigest()}"
    return key


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
    bound = inspect.signature(task.run).bind(*args, **kwargs)
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
    with renewals.renewing(claims, key, owner):
        try:
            value = body()
        except BaseException:
            _release(claims, key, owner)
            raise
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


class Renewals:
    """One thread per process that renews the leases of what runs in it."""

    def __init__(self) -> None:
        """Start with nothing; the thread starts with the first lease."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Claims, str]] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def renewing(self, claims: "Claims", key: str, owner: str) -> "_Renewing":
        """Return a context in which the lease of *key* is renewed."""
        return _Renewing(self, claims, key, owner)

    def hold(self, claims: "Claims", key: str, owner: str) -> None:
        """Renew the lease of *key* from now on."""
        with self._lock:
            self._held[owner + key] = (claims, key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="renewals", daemon=True)
                self._thread.start()

    def drop(self, key: str, owner: str) -> None:
        """Renew it no longer."""
        with self._lock:
            self._held.pop(owner + key, None)

    def _renew(self) -> None:
        while not self._wake.wait(RENEW_SECONDS):
            with self._lock:
                held = [(name, *what) for name, what in self._held.items()]
            for name, claims, key in held:
                try:
                    claims.renew(key, owner=name.removesuffix(key), lease_seconds=LEASE_SECONDS)
                except _lost:
                    continue  # another look before the lease runs out


class _Renewing:
    def __init__(self, renewals: Renewals, claims: "Claims", key: str, owner: str) -> None:
        self._renewals = renewals
        self._what = claims, key, owner

    def __enter__(self) -> None:
        self._renewals.hold(*self._what)

    def __exit__(self, *_: object) -> None:
        self._renewals.drop(*self._what[1:])


renewals = Renewals()
"""Those of this process."""
