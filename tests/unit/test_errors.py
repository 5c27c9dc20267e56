"""The tree of errors: what a caller can tell from each, and how each crosses a wire."""

import json
import pickle
from types import SimpleNamespace

import httpx
import pytest

from resilience import errors
from resilience.consistency import DatabaseUnavailableError, OwnWriteUnavailableError
from resilience.consistency import errors as consistency_errors
from resilience.errors import (
    AllFallbacksFailedError,
    AlreadyRunningError,
    AnswerTooOldError,
    AttemptTimeoutError,
    BudgetExceededError,
    BulkheadFullError,
    CircuitOpenError,
    ConfigurationError,
    FeatureShedError,
    LedgerUnavailableError,
    NoStoredAnswerError,
    OrderConflictError,
    RejectedError,
    ResilienceError,
    SchemaError,
    StoreUnavailableError,
    TooManyAbandonedError,
    UnkeepableError,
    retry_after_of,
    text_of,
)
from tests.unit.odd_errors import ClosedError, SilentError

REASONS = {"run": "OSError: gone", "1. stale": "NoStoredAnswerError: nothing is remembered"}
SAMPLES = [
    ResilienceError("said"),
    ConfigurationError("said"),
    RejectedError("payments"),
    RejectedError("payments", 2.5),
    BulkheadFullError("payments"),
    BulkheadFullError("payments", 2.5),
    CircuitOpenError("payments"),
    CircuitOpenError("payments", 2.5),
    AlreadyRunningError("send:order:1", 2.5),
    FeatureShedError("search.ranking", 2, "open:search", "controller"),
    FeatureShedError("search.ranking", 2, "too slow", "order", 2.5),
    OrderConflictError("said"),
    TooManyAbandonedError(64),
    BudgetExceededError("get_user", 0.4, 0.6, 1.0, conclusive=True),
    BudgetExceededError("get_user", 0.0, -0.1, 1.0),
    AttemptTimeoutError("payments", 0.5),
    AllFallbacksFailedError("payments", REASONS),
    AllFallbacksFailedError("payments", REASONS, 30.0),
    NoStoredAnswerError("said"),
    AnswerTooOldError("said"),
    StoreUnavailableError("said"),
    LedgerUnavailableError("said"),
    UnkeepableError("said"),
    SchemaError("said"),
    DatabaseUnavailableError("shop", "refused"),
    DatabaseUnavailableError("shop", "CircuitOpenError", 2.5),
    OwnWriteUnavailableError("shop", "cart:7", "refused"),
    OwnWriteUnavailableError("shop", "cart:7", "CircuitOpenError", 2.5),
]


def test_samples_hold_every_error_of_the_tree() -> None:
    """No error is left out of the promises below."""
    tree = {
        kind
        for module in (errors, consistency_errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ResilienceError)
    }

    assert {type(sample) for sample in SAMPLES} == tree


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
def test_error_is_rebuilt_from_its_args(error: ResilienceError) -> None:
    """An error that Celery sent as JSON is the same error on the other side."""
    back = type(error)(*json.loads(json.dumps(error.args)))

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
def test_error_survives_pickle(error: ResilienceError) -> None:
    """An error that crosses from a pool's process to its parent stays what it is."""
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_rejection_says_when_to_come_back() -> None:
    """A refusal names the dependency and, where known, the seconds to wait."""
    assert str(RejectedError("payments", 2.5)) == "payments was not called; retry after 2.5 s"
    assert str(RejectedError("payments")) == "payments was not called"


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (RejectedError, ("payments",)),
        (CircuitOpenError, ("payments",)),
        (BulkheadFullError, ("payments",)),
        (FeatureShedError, ("ranking", 2, "too slow", "order")),
        (DatabaseUnavailableError, ("shop", "refused")),
        (OwnWriteUnavailableError, ("shop", "cart:7", "refused")),
    ],
)
def test_refusal_says_in_its_text_when_to_come_back(
    kind: type[ResilienceError], args: tuple[object, ...]
) -> None:
    """In seconds, without decimals that nobody needs; and nothing where that is not known."""
    text = str(kind(*args))

    assert "retry after" not in text
    assert str(kind(*args, 2.5)) == f"{text}; retry after 2.5 s"


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
def test_error_is_no_builtin_timeout(error: ResilienceError) -> None:
    """Celery's `get()` takes a `TimeoutError` that a job ended in for one of its own."""
    assert not isinstance(error, TimeoutError)


def test_exhausted_chain_explains_every_step() -> None:
    """The text holds what each step said, in the order tried, and when to come back."""
    assert str(AllFallbacksFailedError("users", REASONS, 30.0)) == (
        "no answer from users: run: OSError: gone; "
        "1. stale: NoStoredAnswerError: nothing is remembered (retry after 30 s)"
    )


def test_exhausted_chain_does_not_share_its_reasons() -> None:
    """Changing the mapping it was made from does not change what it says."""
    reasons = dict(REASONS)
    error = AllFallbacksFailedError("users", reasons)
    reasons.clear()

    assert error.reasons == REASONS == error.args[1]


def refused_by(headers: dict[str, str]) -> httpx.HTTPStatusError:
    """Return the error that httpx raises for a 503 with these headers."""
    request = httpx.Request("GET", "http://users.test/")
    response = httpx.Response(503, headers=headers, request=request)
    return httpx.HTTPStatusError("503", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(RejectedError("users", 2.5), 2.5, id="attribute"),
        pytest.param(RejectedError("users", 0), 0.0, id="now"),
        pytest.param(RejectedError("users"), None, id="unknown"),
        pytest.param(refused_by({"retry-after": "7"}), 7.0, id="header"),
        pytest.param(refused_by({}), None, id="no-header"),
        pytest.param(refused_by({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), None, id="date"),
        pytest.param(refused_by({"Retry-After": "-1"}), None, id="negative"),
        pytest.param(refused_by({"Retry-After": "nan"}), None, id="nan"),
        pytest.param(refused_by({"Retry-After": "inf"}), None, id="infinite"),
        pytest.param(RejectedError("users", 10**400), None, id="overflow"),
        pytest.param(httpx.ConnectError("refused"), None, id="no-response"),
        pytest.param(OSError("gone"), None, id="foreign"),
        pytest.param(ClosedError("closed"), None, id="property-raises"),
    ],
)
def test_retry_after_is_read_where_an_error_says_it(
    error: Exception, seconds: float | None
) -> None:
    """Seconds come from the error or its response; anything unusable counts as not said."""
    assert retry_after_of(error) == seconds


def test_retry_after_is_not_read_from_a_strange_response() -> None:
    """A `response` without headers, such as a dictionary, says nothing."""
    error = OSError("gone")
    error.response = {"Error": {"Code": "Throttling"}}  # type: ignore[attr-defined]
    assert retry_after_of(error) is None

    error.response = SimpleNamespace(headers=None)  # type: ignore[attr-defined]
    assert retry_after_of(error) is None


def test_text_of_an_error_never_raises() -> None:
    """An error whose own text raises is still an error that can be named."""
    assert text_of(OSError("gone")) == "gone"
    assert text_of(SilentError()) == "(its text raised KeyError)"
