"""Let no client wait longer than the current budget.

What a client waits for ends a little before the budget does (10 %, at most 0.1 s), so that its own
error comes first, which says more, and lets it clean up. Without a budget all is as before.

| client | how it is limited | what only the cut by the budget ends |
|---|---|---|
| any | `timeout=client_timeout()` | whatever the client does not count as one wait |
| requests | the same: it holds for the connect, then for each read | a body that trickles |
| httpx | `limit_requests(client)`: for all phases together | a body that trickles, name lookup |
| SQLAlchemy, PostgreSQL | `limit_statements(engine)` | connect, pool, a network that is gone |
| redis-py | `limit_commands(client)` | an answer that trickles, an exhausted pool |

Asynchronous clients need none of this: the cut cancels them wherever they wait, and they drop the
connection.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from resilience.budget.budget import TimeoutBudget, current_budget
from resilience.budget.limits import checked_seconds
from resilience.clock import SystemClock
from resilience.errors import BudgetExceededError, RejectedError

if TYPE_CHECKING:  # all optional: this module loads none of them
    import httpx
    from sqlalchemy import Connection, Engine, RootTransaction

MARGIN_SHARE = 0.1
"""A client gives up so much of what remains before the budget ends: twice as early as a pipeline
cuts."""
MARGIN_SECONDS_MAX = 0.1
LAST_SHARE = 2 * MARGIN_SHARE
"""What fails when no more of its time is left than this, failed as its client gave up."""
CLIENT = "a client's call"
LEAST_SECONDS = 1e-3
"""Shorter timeouts mean "do not wait at all", or "for ever", to some clients."""

_FIRST_LIMIT = """
WITH own AS MATERIALIZED (
  SELECT 1000 * extract(epoch FROM current_setting('statement_timeout')::interval) AS ms)
SELECT ms::bigint, set_config('statement_timeout', least(nullif(ms, 0), {ms})::bigint::text, true)
FROM own"""
_LIMIT = "SET LOCAL statement_timeout = {ms}"
_ROLLBACK_TO = "ROLLBACK TO "
"""Begins what SQLAlchemy sends to roll back to a savepoint."""
_STATE = "resilience.limited"

_monotonic = SystemClock.monotonic


@overload
def client_timeout(at_most: float) -> float: ...


@overload
def client_timeout(at_most: None = None) -> float | None: ...


def client_timeout(at_most: float | None = None) -> float | None:
    """Return the seconds that a client may wait now; None: neither *at_most* nor a budget says.

    Args:
        at_most: What it may wait if there is no budget, or one that has more left.

    Raises:
        BudgetExceededError: Nothing is left.
        ConfigurationError: *at_most* is no length of time.
    """
    if at_most is not None:
        at_most = checked_seconds(at_most, "client_timeout")
    budget = current_budget()
    if budget is None:
        return at_most
    seconds = seconds_of(budget)
    return seconds if at_most is None else min(at_most, seconds)


def seconds_of(budget: TimeoutBudget) -> float:
    """Return what a client may wait of *budget*.

    Raises:
        BudgetExceededError: Nothing is left.
    """
    left = budget.remaining()
    if left <= 0:
        raise BudgetExceededError(CLIENT, 0.0, left, budget.total)
    return max(LEAST_SECONDS, left - min(MARGIN_SHARE * left, MARGIN_SECONDS_MAX))


def lacked_time(error: Exception, budget: TimeoutBudget, seconds: float) -> bool:
    """Tell whether a call that had *seconds* of *budget* failed as they ran out, by *error*."""
    if isinstance(error, RejectedError):  # was not even begun
        return False
    if isinstance(error, BudgetExceededError) and not error.conclusive:
        return False  # says so itself
    return budget.remaining() <= LAST_SHARE * seconds


def limit_requests(client: "httpx.Client") -> None:
    """Let the requests of *client* take no longer than the budget.

    httpx takes its timeout for each phase again: to get a connection from the pool, to connect, to
    write, to read the head, to read the body. Here each phase has what those before it left.
    """
    client.event_hooks["request"].append(_limit_request)


def _limit_request(request: "httpx.Request") -> None:
    budget = current_budget()
    if budget is not None:
        until = _monotonic() + seconds_of(budget)
        request.extensions["timeout"] = _Phases(request.extensions.get("timeout", {}), until)


class _Phases(dict[str, Any]):
    """Timeouts by phase, each read when its phase begins."""

    def __init__(self, own: dict[str, Any], until: float) -> None:
        super().__init__(own)
        self._until = until

    def get(self, phase: str, default: Any = None) -> Any:  # noqa: ANN401 - as dict's
        own = super().get(phase, default)
        left = max(LEAST_SECONDS, self._until - _monotonic())
        return left if own is None else min(own, left)


def limit_statements(engine: "Engine") -> None:
    """Let PostgreSQL end the statements of *engine* that outlast the budget; others: do nothing.

    It sets `statement_timeout` for the transaction, before the first statement and again when so
    little remains that a statement could outlast the budget: a round trip each. One that the role
    or the session has already stays if it is shorter, and is back once the budget is left.

    A connection in AUTOCOMMIT has no transaction to set it for, and is not limited.
    """
    if engine.dialect.name != "postgresql":
        return
    from sqlalchemy import event  # noqa: PLC0415 - loaded by who has an engine

    event.listen(engine, "before_cursor_execute", _limit_statement)


@dataclass(slots=True)
class _Limited:
    """What holds for a transaction: until when, how many seconds a statement, and by itself."""

    transaction: "RootTransaction | None"
    deadline: float
    seconds: float
    own_ms: int = 0


def _limit_statement(connection: "Connection", _cursor: object, statement: str, *_: object) -> None:
    state: _Limited | None = connection.info.get(_STATE)
    if state is not None and state.transaction is not connection.get_transaction():
        state = None
    if statement.startswith(_ROLLBACK_TO):
        # PostgreSQL may take nothing else before, and forgets what was set behind the savepoint.
        if state is not None:
            state.seconds = math.inf
        return
    budget = current_budget()
    if budget is not None:
        _limit_transaction(connection, budget, state)
    elif state is not None:
        del connection.info[_STATE]
        connection.exec_driver_sql(_LIMIT.format(ms=state.own_ms))


def _limit_transaction(
    connection: "Connection", budget: TimeoutBudget, state: _Limited | None
) -> None:
    seconds = seconds_of(budget)
    if state is not None and state.deadline == budget.deadline:
        halfway_to_the_cut = (seconds + budget.remaining()) / 2
        if state.seconds <= halfway_to_the_cut:
            return
    ms = max(1, int(1000 * seconds))
    # Before the statement that sets it, which comes through here as well.
    transaction = connection.get_transaction()
    now = connection.info[_STATE] = _Limited(transaction, budget.deadline, seconds)
    if state is None:
        found = connection.exec_driver_sql(_FIRST_LIMIT.format(ms=ms))
        now.own_ms = int(found.scalar_one())
    else:
        now.own_ms = state.own_ms
        connection.exec_driver_sql(_LIMIT.format(ms=min(ms, now.own_ms or ms)))
