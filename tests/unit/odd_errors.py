"""Errors that behave as strangely as some clients' do."""


class SilentError(Exception):
    """An error whose own text raises."""

    def __str__(self) -> str:
        """Fail, as a message built from a missing attribute does."""
        raise KeyError


class ClosedError(Exception):
    """An error that raises when asked when to come back."""

    @property
    def retry_after(self) -> float:
        """Fail, as a lazy attribute of a closed response does."""
        msg = "closed"
        raise RuntimeError(msg)


class EmptyError(Exception):
    """An error that counts as false."""

    def __bool__(self) -> bool:
        """Tell that there is nothing in it."""
        return False
