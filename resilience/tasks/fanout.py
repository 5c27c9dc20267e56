"""Run several tasks at once, and answer with what came back in time."""

import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from celery import Celery, Signature, Task, _state
from celery._state import _get_active_apps  # type: ignore[attr-defined] # missing in the stubs
from celery.canvas import _chain, chord, group
from celery.exceptions import NotRegistered
from celery.utils import uuid

from resilience.budget import checked_seconds
from resilience.errors import BulkheadFullError, ConfigurationError, StoreUnavailableError
from resilience.events import PublishFailed
from resilience.store import Memory, Slot
from resilience.tasks.eager import EagerPart, run_here
from resilience.tasks.envelope import slot_header
from resilience.tasks.pending import PendingResponse
from resilience.tasks.publishing import PUBLISH_ERRORS, PublishTimeoutError, publish_within
from resilience.tasks.reporting import report_failure
from resilience.tasks.resilience import Resilience
from resilience.tasks.serialization import must_encode
from resilience.tasks.task import ResilientTask

BATCHES = 4
"""A large fan-out is published in about this many batches, so that workers begin while later parts
are still being prepared."""
BATCH_LEAST = 10
"""A batch has at least this many parts, as each batch is a round trip: five parts take one."""
LEAST_SECONDS = 1e-3
PUBLISH_TIMEOUTS = 3
"""A broker that hangs may take this many publish timeouts: to connect, to log in, to answer."""
PART_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One task of a fan-out; made by `part`."""

    signature: Signature[Any]
    required: bool
    stale: float | None


def part(signature: Signature[Any], *, required: bool = False, stale: float | None = None) -> Part:
    """Declare one part of a fan-out.

    Args:
        signature: A single task, `task.s(…)`, whose class is a `ResilientTask`.
        required: Whether the whole response fails without this part.
        stale: How old, in seconds, an answer may be when it comes in. A full answer that is not
            older stands in (level STALE) when the part fails or is missing; an older answer of the
            task's own fallback chain is not accepted. None: nothing stands in, and the task's chain
            decides alone.

    Raises:
        ConfigurationError: *signature* is not the signature of a single task, or has an argument
            that JSON cannot encode; *required* is not a bool; *stale* is not more than 0.
    """
    if isinstance(signature, (group, _chain, chord)):
        msg = f"a part is a single task, got {signature!r}; start a fan-out inside a task instead"
        raise ConfigurationError(msg)
    if not isinstance(signature, Signature):
        msg = f"a part needs a task signature such as task.s(…), got {signature!r}"
        raise ConfigurationError(msg)
    if not isinstance(required, bool):
        msg = f"part {signature.task}: required must be True or False, got {required!r}"
        raise ConfigurationError(msg)
    if stale is not None:
        _check_seconds(stale, where=f"part {signature.task}: stale")
    must_encode([signature.args, signature.kwargs], where=f"part {signature.task}, arguments")
    return Part(signature=signature, required=required, stale=stale)


class FanOut:
    """Parts that run at once, each in its own bulkhead, and answer together by a deadline.

    A fan-out is a declaration: it can be a module constant, and be applied any number of times. A
    part may be a fan-out itself; its parts then have dotted names, and a mapping of their own in
    the data.
    """

    def __init__(self, /, **parts: "Part | Signature[Any] | FanOut") -> None:
        """Name the parts.

        Raises:
            ConfigurationError: No part is given, or a value is not a part.
        """
        if not parts:
            msg = "a fan-out needs at least one part: FanOut(name=part(task.s(…)), …)"
            raise ConfigurationError(msg)
        self.parts: Mapping[str, Part] = dict(_flat(parts, prefix=""))

    def __repr__(self) -> str:
        """Return the names of the parts."""
        return f"FanOut({', '.join(self.parts)})"

    def apply_async(
        self, *, budget: float, on_complete: Signature[Any] | None = None
    ) -> PendingResponse:
        """Publish all parts in batches, and return at once.

        A lost store or broker raises nothing: the response then says that its parts are missing.
        While the broker hangs this blocks, for no longer than the budget; on an event loop use
        `await asyncio.to_thread(fan_out.apply_async, budget=…)`.

        Args:
            budget: Seconds from now until the response is final, whatever came in by then.
            on_complete: Published once the response is final, with the response as its first
                argument, even if this process is gone by then.

        Raises:
            ConfigurationError: *budget* is not more than 0; *on_complete* is not a signature; a
                task is not registered, is not a `ResilientTask`, belongs to another app or cannot
                take its arguments (that of *on_complete*: the response before its own); or the app
                was never adopted.
        """
        _check_seconds(budget, where="budget")
        home = _home_of_shared_tasks(one.signature for one in self.parts.values())
        if home is not None:
            return self._bound_to(home).apply_async(budget=budget, on_complete=on_complete)
        app = self._app()
        if on_complete is not None:
            _check_callback(on_complete)
        resilience = Resilience.of(app)
        fan = uuid()
        spec = [(name, one.required) for name, one in self.parts.items()]
        pending = PendingResponse(resilience, fan, spec, budget=budget)
        if app.conf.task_always_eager:
            return run_here(resilience, fan, self._eager_parts(pending), on_complete)
        slots = {
            name: Slot(fan=fan, part=name, stale_seconds=one.stale or 0.0)
            for name, one in self.parts.items()
        }
        callback = "" if on_complete is None else must_encode(on_complete, where="on_complete")
        try:
            resilience.fan_in.open(
                fan, spec, budget=budget, memories=self._memories(resilience), callback=callback
            )
        except StoreUnavailableError as error:
            pending.give_up(error, callback)
            return pending
        try:
            try:
                self._publish(app, slots, budget, pending)
            except PUBLISH_ERRORS:
                # The first command on a connection that died while idle fails, and a second try
                # connects again. A broker that hangs has used up its time by now: a second try
                # would make the response late.
                seconds = min(budget, resilience.settings.publish_timeout_seconds)
                if pending.spent() > seconds / 2:
                    raise
                self._publish(app, slots, budget, pending)
        except PUBLISH_ERRORS as error:
            resilience.announce(PublishFailed(what=repr(self), error=str(error)))
            pending.finish_unpublished()
        return pending

    def _eager_parts(self, pending: PendingResponse) -> dict[str, EagerPart]:
        """Return the parts for an eager app, which calls them in this process."""
        return {
            name: EagerPart(
                signature=one.signature,
                required=one.required,
                seconds=partial(_seconds_of, one.signature, pending),
            )
            for name, one in self.parts.items()
        }

    def _bound_to(self, app: Celery) -> "FanOut":
        """Return a fan-out of the same tasks, resolved by name in *app*."""
        bound = FanOut.__new__(FanOut)
        bound.parts = {
            name: replace(one, signature=Signature.from_dict(dict(one.signature), app=app))
            for name, one in self.parts.items()
        }
        return bound

    def _publish(
        self, app: Celery, slots: Mapping[str, Slot], budget: float, pending: PendingResponse
    ) -> None:
        """Publish here if a broker that hangs cannot use up the budget, else in another thread."""
        seconds = Resilience.of(app).settings.publish_timeout_seconds
        if pending.left() > PUBLISH_TIMEOUTS * seconds:
            self._send(app, slots, pending, threading.Event())
            return
        left = pending.left()
        if left <= 0 or not publish_within(
            left, lambda given_up: self._send(app, slots, pending, given_up)
        ):
            msg = f"the broker did not take the parts within the budget of {budget:g} s"
            raise PublishTimeoutError(msg)

    def _send(
        self,
        app: Celery,
        slots: Mapping[str, Slot],
        pending: PendingResponse,
        given_up: threading.Event,
    ) -> None:
        declared: set[object] = set()
        size = max(BATCH_LEAST, len(self.parts) // BATCHES)
        with app.producer_or_acquire(None) as producer, producer.batch(size):
            for name, one in self.parts.items():
                if given_up.is_set():
                    raise PublishTimeoutError(name)
                sig = one.signature
                route = sig.task, sig.options.get("queue"), sig.options.get("lane")
                # Only the first message to a queue declares it.
                options: dict[str, Any] = {"declare": ()} if route in declared else {}
                declared.add(route)
                try:
                    sig.apply_async(
                        headers={**(sig.options.get("headers") or {}), **slot_header(slots[name])},
                        producer=producer,
                        budget=_seconds_of(sig, pending),
                        ignore_result=True,
                        add_to_parent=False,
                        retry=False,
                        **options,
                    )
                except BulkheadFullError as error:
                    declared.discard(route)
                    report_failure(Resilience.of(app), slots[name], error)

    def _memories(self, resilience: Resilience) -> dict[str, Memory]:
        """Return where the last full answers of parts with `stale` are remembered.

        The age is part of the name: an answer that one fan-out remembers for an hour is too old for
        another one that allows a minute.
        """
        key_of, stale = resilience.answers.key_of_call, {}
        for name, one in self.parts.items():
            if one.stale is not None:
                sig, call = one.signature, f"part:{one.signature.task}:{one.stale:g}"
                stale[name] = Memory(key_of(call, sig.args, sig.kwargs), one.stale)
        return stale

    def _app(self) -> Celery:
        """Return the app of all parts, after checking that every part can be published."""
        tasks = {name: _task_of(name, one.signature) for name, one in self.parts.items()}
        apps = {id(task.app): task.app for task in tasks.values()}
        if len(apps) > 1:
            msg = f"{self!r} has parts of several apps: {', '.join(map(repr, apps.values()))}"
            raise ConfigurationError(msg)
        return next(iter(apps.values()))


def _seconds_of(signature: Signature[Any], pending: PendingResponse) -> float | None:
    """Return the budget of a part: its own, or the rest of the fan-out's if that is less."""
    left = max(pending.left(), LEAST_SECONDS)
    own = signature.options.get("budget", left)
    return None if own is None else min(checked_seconds(own, f"part {signature.task}"), left)


def _check_seconds(value: object, *, where: str) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        msg = f"{where} must be more than 0 seconds, got {value!r}"
        raise ConfigurationError(msg)


def _home_of_shared_tasks(signatures: Iterable[Signature[Any]]) -> Celery | None:
    """Return the adopted app in which to resolve shared tasks that were signed before it existed.

    A shared task that is used before there is an app belongs to Celery's default app from then on.
    None: the tasks need no other app, or it is not clear which one is meant.
    """
    default = _state.default_app  # type: ignore[attr-defined] # missing in the stubs
    if _is_adopted(default) or all(signature.app != default for signature in signatures):
        return None
    current: Celery[Any] = _state.get_current_app()
    if _is_adopted(current):
        return current
    # In a thread other than the one that made the app, the current app is the default one.
    adopted = [app for app in _get_active_apps() if _is_adopted(app)]
    return adopted[0] if len(adopted) == 1 else None


def _is_adopted(app: object) -> bool:
    return getattr(app, "resilience", None) is not None


def _task_of(name: str, signature: Signature[Any]) -> ResilientTask:
    """Return the task of part *name*, after checking that it reports and takes its arguments."""
    try:
        task = signature.type
    except NotRegistered as error:
        msg = f"part {name!r}: no task is called {signature.task!r}; import the module it is in"
        raise ConfigurationError(msg) from error
    if not isinstance(task, ResilientTask):
        msg = (
            f"part {name!r}: {task.name} is no ResilientTask, so it would never report; "
            "declare it with base=ResilientTask"
        )
        raise ConfigurationError(msg)
    _check_arguments(task, signature.args, signature.kwargs, where=f"part {name!r}")
    return task


def _check_arguments(
    task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, where: str
) -> None:
    check = getattr(task, "__header__", None) if task.typing else None
    if check is not None:
        try:
            check(*args, **kwargs)
        except TypeError as error:
            msg = f"{where}: {error}"
            raise ConfigurationError(msg) from error


def _check_callback(sig: object) -> None:
    """Check that *sig* takes a response: nobody would notice the error once it is published."""
    if not isinstance(sig, Signature):
        msg = f"on_complete needs a signature such as task.s(), got {sig!r}"
        raise ConfigurationError(msg)
    if sig.immutable:
        return
    if isinstance(sig, (_chain, group, chord)):
        for first in sig.tasks[:1] if isinstance(sig, _chain) else sig.tasks:
            _check_callback(first)
        return
    try:
        task = sig.type
    except NotRegistered:
        return  # the task of another service, which alone knows what it takes
    args = ("response", *sig.args)
    _check_arguments(task, args, sig.kwargs, where=f"on_complete, {sig.task} with the response")


def _flat(
    parts: "Mapping[str, Part | Signature[Any] | FanOut]", *, prefix: str
) -> Iterator[tuple[str, Part]]:
    for name, one in parts.items():
        if not PART_NAME.fullmatch(name):
            msg = f"part name {prefix + name!r}: use letters, digits, _ and -; dots mean nesting"
            raise ConfigurationError(msg)
        if isinstance(one, FanOut):
            for inner, its in one.parts.items():
                yield f"{prefix}{name}.{inner}", its
        elif isinstance(one, Part):
            yield prefix + name, one
        else:
            yield prefix + name, part(one)
