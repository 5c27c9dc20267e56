"""Results of jobs that were dropped, many in one exchange."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.states import REVOKED, SUCCESS
from celery.worker.request import Request

from resilience.text import get_logger

logger = get_logger(__name__)

Revoked = tuple[Request, Context, TaskRevokedError]


def store_revoked(jobs: Sequence[tuple[Request, TaskRevokedError]]) -> None:
    """Store for each job that it was revoked and why; tell its chord, chain and errbacks.

    What cannot be stored is logged and given up, as it is when a job has run: the worker goes on.
    """
    plain: dict[int, list[Revoked]] = {}
    for request, why in jobs:
        context: Context = request._context  # type: ignore[attr-defined] # noqa: SLF001
        backend = request.task.backend
        if len(jobs) > 1 and isinstance(backend, RedisBackend) and _concerns_nobody_else(context):
            plain.setdefault(id(backend), []).append((request, context, why))
        else:
            with logged(request.id):
                store = request.store_errors
                backend.mark_as_failure(
                    request.id, why, request=context, store_result=store, state=REVOKED
                )
    for those in plain.values():
        with logged(*(request.id for request, *_ in those)):
            _store_at_once(those)


@contextmanager
def logged(*ids: str, what: str = "no result is stored for dropped jobs:") -> Iterator[None]:
    """Log what keeps the results of these jobs from being stored, and go on."""
    try:
        yield
    except Exception:
        # In the worker's event loop it would end the worker.
        logger.exception("%s %s", what, ", ".join(map(str, ids)))


def _concerns_nobody_else(context: Context) -> bool:
    return not (context.chord or context.chain or context.errbacks)


def _store_at_once(revoked: Sequence[Revoked]) -> None:
    """Do what the backend does for one: unless it is stored that the job succeeded elsewhere."""
    backend: Any = revoked[0][0].task.backend
    values: dict[str, str] = {}
    for request, context, why in revoked:
        if request.store_errors:
            result = backend.encode_result(why, REVOKED)
            meta = backend._get_result_meta(result, REVOKED, None, context)  # noqa: SLF001
            key = backend.get_key_for_task(request.id)
            values[key] = backend.encode({**meta, "task_id": request.id})
    if values:
        backend.ensure(_write, (backend, values))


def _write(backend: Any, values: dict[str, str]) -> None:  # noqa: ANN401 - Celery's
    known = backend.mget(list(values))
    with backend.client.pipeline(transaction=False) as pipe:
        for (key, value), before in zip(values.items(), known, strict=True):
            if before is None or backend.decode_result(before)["status"] != SUCCESS:
                pipe.set(key, value, ex=backend.expires or None)
                pipe.publish(key, value)
        pipe.execute()
