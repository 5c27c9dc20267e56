"""Faults that are ordered for a whole fleet: they travel with the state of the features."""

from collections.abc import Iterable, Mapping
from uuid import uuid4

from resilience.declared import check_known, check_order
from resilience.errors import ConfigurationError, OrderConflictError
from resilience.events import FaultOrdered, Listener, announce
from resilience.faults import Fault
from resilience.flags.document import Document, FaultOrder, FaultStop
from resilience.flags.flags import Flags
from resilience.pulse import Pulse

FAULT_SECONDS = 300.0
"""How long a fault lasts unless told otherwise."""
STOP_SECONDS = 86_400.0
"""How long new faults are refused after all were stopped, unless told otherwise."""
FAULTS_MAX = 50
"""So many faults may be in force at once: all processes fetch them."""


class Faults:
    """The faults that are in force, and orders of them.

    A fault ends by itself, by `clear`, and by `stop_all`, which also refuses new ones. It reaches
    every process within a second, and ends there as soon. A process that has lost the store injects
    nothing more after five minutes.
    """

    def __init__(
        self,
        flags: Flags,
        pulse: Pulse,
        dependencies: Iterable[str],
        *,
        own: Iterable[Fault] = (),
        allowed: bool = False,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Order nothing yet.

        Args:
            flags: What brings the state of the fleet.
            pulse: Where fleet time comes from.
            dependencies: Names of those that faults may be for.
            own: Faults of this process alone, which last until `stop_all`.
            allowed: Whether this process injects faults and may order them: `RESILIENCE_CHAOS`.
            listeners: Who hears of orders.

        Raises:
            ConfigurationError: One of its *own* faults is for an unknown dependency, names an error
                that does not exist, or is not *allowed*.
        """
        self._flags = flags
        self._pulse = pulse
        self._dependencies = tuple(dependencies)
        self._listeners = listeners
        self.allowed = allowed
        self._own: dict[str, Fault] = {}
        for number, fault in enumerate(own, start=1):
            self._check(fault)
            self._own[f"own-{number}"] = fault

    def active(self, dependency: str) -> Mapping[str, Fault]:
        """Return the faults of *dependency* that are in force, by name, as this process knows."""
        document, now = self._flags.document, self._pulse.time()
        if document.fault_stop is not None and document.fault_stop.until > now:
            return {}
        ordered = {name: one for name, one in document.faults.items() if one.until > now}
        both: dict[str, Fault] = {**self._own, **ordered}
        return {name: one for name, one in both.items() if one.dependency == dependency}

    def ordered(self) -> dict[str, FaultOrder]:
        """Return the faults that are ordered and in force, by name.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        document = self._flags.change(lambda _now, _time: None)
        now = self._pulse.time()
        return {name: one for name, one in document.faults.items() if one.until > now}

    def stop(self) -> FaultStop | None:
        """Return the order that refuses new faults, if one is in force; raises as `ordered`."""
        stop = self._flags.change(lambda _now, _time: None).fault_stop
        return stop if stop is not None and stop.until > self._pulse.time() else None

    def set(
        self,
        fault: Fault,
        *,
        actor: str,
        reason: str,
        seconds: float = FAULT_SECONDS,
        name: str | None = None,
    ) -> FaultOrder:
        """Put *fault* in force for *seconds* in the whole fleet.

        Args:
            fault: What happens.
            actor: Who orders it.
            reason: Why.
            seconds: How long, more than 0.
            name: Under which it is listed and cleared, and which replaces one of that name; None:
                one is made of the dependency, the kind and a random number.

        Raises:
            ConfigurationError: Chaos is not allowed here, its dependency is unknown, its error does
                not exist, *seconds* is out of range, or nobody or no reason is named.
            OrderConflictError: Faults are stopped, or too many are in force.
            StoreUnavailableError: The order did not reach the fleet.
        """
        self._check(fault)
        name = name or f"{fault.dependency}-{fault.kind}-{uuid4().hex[:4]}"
        check_order(f"fault {name}", actor, reason, seconds)

        def edit(now: Document, time: float) -> Document:
            stop = now.fault_stop
            if stop is not None and stop.until > time:
                msg = (
                    f"{stop.actor} has stopped all faults ({stop.reason}); "
                    "end that with `fault allow` before you set one"
                )
                raise OrderConflictError(msg)
            kept = {key: one for key, one in now.faults.items() if one.until > time}
            if name not in kept and len(kept) >= FAULTS_MAX:
                msg = f"{FAULTS_MAX} faults are in force already; clear one first"
                raise OrderConflictError(msg)
            order = FaultOrder(
                **fault.model_dump(),
                name=name,
                at=time,
                until=time + seconds,
                actor=actor,
                reason=reason,
            )
            return now.model_copy(update={"faults": {**kept, name: order}})

        made = self._flags.change(edit).faults[name]
        self._announce("set", name, actor, reason, made.until)
        return made

    def renew(self, name: str, seconds: float) -> bool:
        """Let a fault last *seconds* from now; return False if it is no longer in force.

        Raises:
            StoreUnavailableError: The order did not reach the fleet.
        """

        def edit(now: Document, time: float) -> Document | None:
            order = now.faults.get(name)
            stopped = now.fault_stop is not None and now.fault_stop.until > time
            if order is None or order.until <= time or stopped:
                return None
            order = order.model_copy(update={"until": time + seconds})
            return now.model_copy(update={"faults": {**now.faults, name: order}})

        order = self._flags.change(edit).faults.get(name)
        return order is not None and order.until > self._pulse.time()

    def clear(self, name: str, *, actor: str, reason: str) -> bool:
        """End the fault called *name* in the whole fleet; return whether it was in force.

        Raises:
            ConfigurationError: Nobody or no reason is named.
            StoreUnavailableError: The order did not reach the fleet.
        """
        check_order(f"clear {name}", actor, reason)
        was: list[bool] = []

        def edit(now: Document, time: float) -> Document | None:
            was.append(name in now.faults and now.faults[name].until > time)
            kept = {key: one for key, one in now.faults.items() if key != name}
            return now.model_copy(update={"faults": kept}) if name in now.faults else None

        self._flags.change(edit)
        if was[-1]:
            self._announce("cleared", name, actor, reason)
        return was[-1]

    def stop_all(self, *, actor: str, reason: str, seconds: float = STOP_SECONDS) -> list[str]:
        """End all faults in the whole fleet and refuse new ones for *seconds*; return their names.

        Raises:
            ConfigurationError: *seconds* is out of range, or nobody or no reason is named.
            StoreUnavailableError: The order did not reach the fleet.
        """
        check_order("stop of all faults", actor, reason, seconds)
        ended: list[str] = []

        def edit(now: Document, time: float) -> Document:
            ended[:] = [name for name, one in now.faults.items() if one.until > time]
            stop = FaultStop(until=time + seconds, actor=actor, reason=reason, at=time)
            return now.model_copy(update={"faults": {}, "fault_stop": stop})

        made = self._flags.change(edit).fault_stop
        self._announce("stopped", "all", actor, reason, None if made is None else made.until)
        return ended

    def allow(self, *, actor: str, reason: str) -> bool:
        """Accept new faults again after `stop_all`; return whether they were refused.

        Raises:
            ConfigurationError: Nobody or no reason is named.
            StoreUnavailableError: The order did not reach the fleet.
        """
        check_order("allow faults", actor, reason)
        was: list[bool] = []

        def edit(now: Document, time: float) -> Document | None:
            was.append(now.fault_stop is not None and now.fault_stop.until > time)
            return now.model_copy(update={"fault_stop": None}) if now.fault_stop else None

        self._flags.change(edit)
        if was[-1]:
            self._announce("allowed", "all", actor, reason)
        return was[-1]

    def _check(self, fault: Fault) -> None:
        if not self.allowed:
            msg = (
                f"fault of {fault.dependency!r}: chaos is off; set RESILIENCE_CHAOS=1 here and "
                "for the workers and web processes that are to inject faults"
            )
            raise ConfigurationError(msg)
        check_known(fault.dependency, self._dependencies, "No dependency is called")
        try:
            fault.check_error()
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    def _announce(
        self, order: str, name: str, actor: str, reason: str, until: float | None = None
    ) -> None:
        event = FaultOrdered(fault=name, order=order, until=until, actor=actor, reason=reason)
        announce(event, self._listeners)
