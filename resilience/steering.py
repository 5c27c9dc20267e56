"""Exceptions that steer a job and are no failure."""

from abc import ABC

NAMES = frozenset({"Ignore", "Reject", "Retry"})


class Neutral(ABC):  # noqa: B024 - nobody derives from it
    """What Celery raises to steer a job: `Retry`, `Ignore` and `Reject`."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        # By name: code that needs nothing else of Celery must know them without an import of it.
        celerys = {
            one.__qualname__ for one in kind.__mro__ if one.__module__ == "celery.exceptions"
        }
        return not NAMES.isdisjoint(celerys)
