"""What people order a circuit to do."""

from dataclasses import replace

from resilience.breaker.keeper import Keeper
from resilience.breaker.state import Circuit, State, closed
from resilience.declared import check_order
from resilience.errors import OrderConflictError, StoreUnavailableError
from resilience.events import CircuitForced

ORDER_TRIES = 20


class Ordered(Keeper):
    """A circuit that people may force open or closed, observe and reset."""

    def force_open(
        self, *, seconds: float, actor: str, reason: str, seen: int | None = None
    ) -> None:
        """Refuse every call in the whole fleet for *seconds*.

        Args:
            seconds: How long, more than 0.
            actor: Who orders it.
            reason: Why.
            seen: Generation of the circuit that *actor* has seen; None: whatever it is.

        Raises:
            ConfigurationError: *seconds* is not more than 0, or nobody or no reason is named.
            OrderConflictError: The circuit has changed since the one *seen*.
            StoreUnavailableError: The order did not reach the fleet.
        """
        self._order(State.FORCED_OPEN, seconds, actor, reason, seen)

    def force_closed(
        self, *, seconds: float, actor: str, reason: str, seen: int | None = None
    ) -> None:
        """Let every call through for *seconds*, whatever fails. Raises as `force_open`."""
        self._order(State.FORCED_CLOSED, seconds, actor, reason, seen)

    def observe(self, *, seconds: float, actor: str, reason: str, seen: int | None = None) -> None:
        """Let every call through for *seconds*, but announce when the circuit would open.

        Raises as `force_open`.
        """
        self._order(State.OBSERVED, seconds, actor, reason, seen)

    def reset(self, *, actor: str, reason: str, seen: int | None = None) -> None:
        """Close the circuit, end any order and forget what was counted. Raises as `force_open`."""
        self._order(None, 0.0, actor, reason, seen)

    def _order(
        self, manual: State | None, seconds: float, actor: str, reason: str, seen: int | None
    ) -> None:
        check_order(f"breaker {self.name}", actor, reason, seconds if manual else 1.0)
        order = str(manual or "reset")
        event = CircuitForced(
            dependency=self.name, order=order, seconds=seconds, actor=actor, reason=reason
        )
        for _ in range(ORDER_TRIES):
            now = self._pulse.refresh()
            kept, circuit = self._kept, self._circuit
            if seen is not None and circuit.generation != seen:
                msg = f"breaker {self.name}: the circuit has changed since; look again"
                raise OrderConflictError(msg)
            new: Circuit = replace(
                closed(circuit, now),
                manual=manual,
                manual_until=now + seconds,
                actor=actor,
                reason=reason,
            )
            try:
                if self._pulse.run(self.change(kept, new, event), alone=False):
                    return
            except StoreUnavailableError as error:
                msg = f"breaker {self.name}: the order {order} did not reach the fleet: {error}"
                raise StoreUnavailableError(msg) from error
        msg = f"breaker {self.name}: the circuit changed {ORDER_TRIES} times meanwhile; try again"
        raise StoreUnavailableError(msg)
