"""Ask several tasks at once and answer with what came back in time."""

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
from resilience.store import Slot
from resilience.tasks.eager import EagerPart, run_here
from resilience.tasks.envelope import slot_header
from resilience.tasks.pending import PendingResponse
from resilience.tasks.publishing import PUBLISH_ERRORS, PublishTimeoutError, publish_within
from resilience.tasks.reporting import report_failure
from resilience.tasks.resilience import Resilience
from resilience.tasks.serialization import must_encode
from resilience.tasks.task import ResilientTask

FLUSHES = 4
"""A batch goes out in so many shares: workers begin while the rest is still being prepared."""
LEAST_SECONDS = 1e-3
PUBLISH_TIMEOUTS = 3
"""A broker that hangs takes up to as many publish timeouts: to connect, to log in, to answer."""
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
            older stands in (level STALE) when the part fails or does not come; an older one that
            the task's own fallback chain gives is not accepted. None: nothing stands in, and
            the task's chain decides alone.

    Raises:
        ConfigurationError: *signature* is none, or more than one task, or carries a value that
            JSON cannot; *required* is no bool; *stale* is not more than 0.
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
    """Parts that are asked at once, each in its own bulkhead, and answer together by a deadline.

    A declaration: it can be a module constant and be applied any number of times. Parts may be
    fan-outs themselves; theirs then have dotted names and a mapping of their own in the data.
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
        """Publish all parts in one batch and return at once.

        Never raises for a lost store or broker: the response then says that its parts are missing.
        While the broker hangs it blocks, for no longer than the budget; on an event loop use
        `await asyncio.to_thread(fan_out.apply_async, budget=…)`.

        Args:
            budget: Seconds until the response is final, whatever came in by then; publishing
                counts.
            on_complete: Published once the response is final, with it as first argument, even
                if this process is gone by then.

        Raises:
            ConfigurationError: *budget* is not more than 0, *on_complete* is no signature, a task
                is not registered, no `ResilientTask`, of another app or cannot take its arguments
                (the callback's: the response in front of its own), or the app was never adopted.
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
        slots = {name: self._slot(resilience, fan, name, one) for name, one in self.parts.items()}
        stale_keys = {name: slot.stale_key for name, slot in slots.items() if slot.stale_key}
        callback = "" if on_complete is None else must_encode(on_complete, where="on_complete")
        try:
            resilience.fan_in.open(
                fan, spec, budget=budget, stale_keys=stale_keys, callback=callback
            )
        except StoreUnavailableError as error:
            pending.give_up(error, callback)
            return pending
        try:
            try:
                self._publish(app, slots, budget, pending)
            except PUBLISH_ERRORS:
                # The first use of a connection that died while idle tells. A broker that hangs has
                # used up its time by now; asking it again would make the response late.
                seconds = min(budget, resilience.settings.publish_timeout_seconds)
                if pending.spent() > seconds / 2:
                    raise
                self._publish(app, slots, budget, pending)
        except PUBLISH_ERRORS as error:
            resilience.announce(PublishFailed(what=repr(self), error=str(error)))
            pending.finish_unpublished()
        return pending

    def _eager_parts(self, pending: PendingResponse) -> dict[str, EagerPart]:
        """Return the parts as they are called in this process."""
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
        """Publish here if the broker cannot make the response late, else beside."""
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
        share = max(1, len(self.parts) // FLUSHES)
        with app.producer_or_acquire(None) as producer, producer.batch(share):
            for name, one in self.parts.items():
                if given_up.is_set():
                    raise PublishTimeoutError(name)
                sig = one.signature
                route = sig.task, sig.options.get("queue"), sig.options.get("lane")
                # The queue is declared with the first message that goes there, not with each.
                known: dict[str, Any] = {"declare": ()} if route in declared else {}
                declared.add(route)
                try:
                    sig.apply_async(
                        headers={**(sig.options.get("headers") or {}), **slot_header(slots[name])},
                        producer=producer,
                        budget=_seconds_of(sig, pending),
                        ignore_result=True,
                        add_to_parent=False,
                        retry=False,
                        **known,
                    )
                except BulkheadFullError as error:
                    declared.discard(route)
                    report_failure(Resilience.of(app), slots[name], error)

    def _slot(self, resilience: Resilience, fan: str, name: str, one: Part) -> Slot:
        if one.stale is None:
            return Slot(fan=fan, part=name, required=one.required)
        sig = one.signature
        # By age, too: what one fan-out remembers for an hour is too old for one that says a minute.
        call = f"part:{sig.task}:{one.stale:g}"
        return Slot(
            fan=fan,
            part=name,
            required=one.required,
            stale_key=resilience.answers.key_of_call(call, sig.args, sig.kwargs),
            stale_seconds=one.stale,
        )

    def _app(self) -> Celery:
        """Return the app of all parts; none is published before all of them can be."""
        tasks = {name: _task_of(name, one.signature) for name, one in self.parts.items()}
        apps = {id(task.app): task.app for task in tasks.values()}
        if len(apps) > 1:
            msg = f"{self!r} has parts of several apps: {', '.join(map(repr, apps.values()))}"
            raise ConfigurationError(msg)
        return next(iter(apps.values()))


def _seconds_of(signature: Signature[Any], pending: PendingResponse) -> float | None:
    """Return the seconds that a part has: its own, if they are fewer than what the fan-out has."""
    left = max(pending.left(), LEAST_SECONDS)
    own = signature.options.get("budget", left)
    return None if own is None else min(checked_seconds(own, f"part {signature.task}"), left)


def _check_seconds(value: object, *, where: str) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        msg = f"{where} must be more than 0 seconds, got {value!r}"
        raise ConfigurationError(msg)


def _home_of_shared_tasks(signatures: Iterable[Signature[Any]]) -> Celery | None:
    """Return the adopted app to resolve tasks in that were signed before it was made.

    A shared task that is used before there is an app belongs to Celery's default app from then on.
    """
    default = _state.default_app  # type: ignore[attr-defined] # missing in the stubs
    if _is_adopted(default) or all(signature.app != default for signature in signatures):
        return None
    current: Celery[Any] = _state.get_current_app()
    if _is_adopted(current):
        return current
    # A thread that made no app has the default one as its current app.
    adopted = [app for app in _get_active_apps() if _is_adopted(app)]
    return adopted[0] if len(adopted) == 1 else None


def _is_adopted(app: object) -> bool:
    return getattr(app, "resilience", None) is not None


def _task_of(name: str, signature: Signature[Any]) -> ResilientTask:
    """Return the task of part *name*, once it is clear that it takes its arguments and reports."""
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
    """Check that *sig* takes a response: nobody would hear of it when it comes to that."""
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
