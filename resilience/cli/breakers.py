"""`celery -A app resilience breaker`: see circuits and order what they do."""

import getpass
import os
from collections.abc import Callable

import click

from resilience.breaker import Breaker
from resilience.cli.rows import JSON, check_known, print_rows
from resilience.cli.words import duration_in_seconds
from resilience.errors import StoreUnavailableError
from resilience.tasks.resilience import Resilience

HOLD_SECONDS = 600.0
"""How long an order holds unless told otherwise: nobody should have to remember to lift it."""
COLUMNS = ("dependency", "state", "seconds_left", "opened", "actor", "reason")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def breaker(context: click.Context, *, as_json: bool) -> None:
    """List the circuits of the fleet, or order what one does."""
    if context.invoked_subcommand is not None:
        return
    print_rows(breaker_rows(connected(Resilience.of(context.obj.app))), COLUMNS, as_json=as_json)


def who() -> str:
    """Return the user's name, or in a container that gave him none his number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _order(name: str, text: str, give: Callable[[Breaker, float, str, str], None]) -> None:
    @breaker.command(name, help=text)
    @click.argument("dependency")
    @click.option("--seconds", type=duration_in_seconds, default=HOLD_SECONDS, show_default=True)
    @click.option("--actor", default=who, show_default="who runs this")
    @click.option("--reason", required=True, help="Why; it is kept and announced.")
    @click.pass_context
    def order(
        context: click.Context, dependency: str, seconds: float, actor: str, reason: str
    ) -> None:
        known = _breakers(connected(Resilience.of(context.obj.app)))
        check_known(dependency, known, "No breaker guards")
        give(known[dependency], seconds, actor, reason)
        click.echo(f"{dependency}: {known[dependency].state}")


_order(
    "open",
    "Refuse every call in the whole fleet for --seconds.",
    lambda one, seconds, actor, reason: one.force_open(seconds=seconds, actor=actor, reason=reason),
)
_order(
    "close",
    "Let every call through for --seconds, whatever fails.",
    lambda one, seconds, actor, reason: one.force_closed(
        seconds=seconds, actor=actor, reason=reason
    ),
)
_order(
    "observe",
    "Let every call through for --seconds, and announce when the circuit would have opened.",
    lambda one, seconds, actor, reason: one.observe(seconds=seconds, actor=actor, reason=reason),
)
_order(
    "reset",
    "Close the circuit and end any order; --seconds means nothing here.",
    lambda one, _seconds, actor, reason: one.reset(actor=actor, reason=reason),
)


def connected(adopted: Resilience) -> Resilience:
    """Return *adopted* once the store has said what is agreed.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses; we would show our ignorance.
        ConfigurationError: The app has no store.
    """
    adopted.store.run(lambda client: client.ping())
    adopted.pulse.refresh()
    if adopted.pulse.scope == "local":
        msg = "the store answers, but refuses a pulse: is it full, read-only or without EVAL?"
        raise StoreUnavailableError(msg)
    return adopted


def _breakers(adopted: Resilience) -> dict[str, Breaker]:
    found = {name: adopted.breaker(name) for name in adopted.dependencies}
    return {name: one for name, one in found.items() if isinstance(one, Breaker)}


def breaker_rows(adopted: Resilience) -> list[dict[str, object]]:
    """Return what this process knows of each circuit."""
    return [_row(one) for one in _breakers(adopted).values()]


def _row(one: Breaker) -> dict[str, object]:
    state, circuit = one.state, one.circuit
    left = one.seconds_left
    return {
        "dependency": one.name,
        "state": str(state),
        "seconds_left": None if left is None else round(left, 1),
        "opened": circuit.attempt,
        "actor": circuit.actor or None,
        "reason": circuit.reason or None,
    }
