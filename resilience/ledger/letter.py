"""What an operator sees of a job."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from resilience.ledger.redaction import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A job with all that is known of it; arguments are redacted. Times are epoch seconds.

    Attributes:
        id: Task id.
        state: Where it is: a `State`, or whatever an unreadable row says.
        task: Name of the task.
        dependency: Whose bulkhead it belongs to.
        queue: Where it is published.
        message: What publishing needs; its bare text if that is no JSON.
        errors: What every call ended in, oldest first: `at` (the host's time), `type`, `text`,
            `traceback`.
        attempts: Calls that have failed, since the last replay if there was one.
        created: When the ledger first kept it.
        due: When a relay acts next; None: never.
        owner: Who has the lease.
        origin: Id of the letter that it is a replay of.
        died: When it was given up.
        reason: Why.
        fingerprint: The same for letters that seem to have one cause.
    """

    id: str
    state: str
    task: str
    dependency: str
    queue: str
    message: Any
    errors: list[Any]
    attempts: int
    created: float
    due: float | None
    owner: str | None
    origin: str | None
    died: float | None
    reason: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Somebody replayed or discarded a letter.

    Attributes:
        at: When, in epoch seconds.
        actor: Who.
        reason: Why.
        action: `replay` or `discard`.
        job: Id of the letter.
        task: Name of its task.
        replay: Id of the job that it became; None if it was discarded.
    """

    at: float
    actor: str
    reason: str
    action: str
    job: str
    task: str
    replay: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How much was forgotten."""

    letters: int
    audit: int
    claims: int


def read_letter(row: RowMapping, redact: frozenset[str]) -> Letter:
    """Return what a row of the jobs holds; a part that is no JSON stays a text.

    Such a text is hidden as a whole if anything is to be hidden: where a value ends is unknown.
    """
    fields = {name: row[name] for name in Letter.__dataclass_fields__}
    fields["message"] = _parsed(row["message"], redact)
    fields["errors"] = [_parsed(line, redact) for line in str(row["errors"]).splitlines()]
    fields["message"], fields["errors"] = redacted(fields["message"], fields["errors"], redact)
    return Letter(**fields)


def _parsed(text: object, redact: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):
        return "(unreadable)" if redact else repr(text)
