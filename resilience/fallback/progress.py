"""How far a fallback chain has come."""

from collections.abc import Mapping
from dataclasses import dataclass

from resilience.errors import text_of
from resilience.text import hide_in_text


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fallback chain has come.

    Attributes:
        error: Why the call itself has no answer.
        reasons: Why the steps before have none.
        label: The step that is asked now.
    """

    error: Exception
    reasons: Mapping[str, str]
    label: str

    def past(self, error: BaseException) -> Mapping[str, str]:
        """Return the reasons once this step has failed with *error*."""
        return {**self.reasons, self.label: reason_of(error)}


def reason_of(error: BaseException) -> str:
    """Return what a chain says of *error*: its class and its text."""
    text = hide_in_text(text_of(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
