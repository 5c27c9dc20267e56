"""Which errors of a call under a budget its `default` may stand in for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from resilience.errors import is_any_of, is_bug, is_unreadable, mark_wrong_call, text_of
from resilience.events import AnswerDegraded, Listener, announce
from resilience.levels import Level
from resilience.steering import Neutral
from resilience.text import get_logger

logger = get_logger("resilience")


def replaceable(
    error: Exception,
    what: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> bool:
    """Tell whether a default may stand in for *function*, whose call *what* ended in *error*.

    Not for a bug, nor for what Celery raises to steer a job. An error of reading an answer, behind
    which a bug may hide, is logged with its traceback.
    """
    mark_wrong_call(error, function, args, kwargs)
    if is_bug(error) or is_any_of(error, (Neutral,)):
        return False
    if is_unreadable(error):
        logger.error("%s: an answer could not be read", what, exc_info=error)
    return True


def announce_default(error: Exception, what: str, listeners: Iterable[Listener]) -> str:
    """Announce that a default stands in for the call *what*; return the reason."""
    reason = type(error).__name__
    event = AnswerDegraded(
        call=what,
        dependency="",  # a call of a budget may be of any
        level=Level.REDUCED,
        reason=reason,
        error=text_of(error),
        source="default",
        age=None,
    )
    announce(event, listeners)
    return reason
