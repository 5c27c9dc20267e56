"""What is raised when nobody can answer well enough; built like those of `resilience.errors`."""

from resilience.errors import ResilienceError


class DatabaseUnavailableError(ResilienceError):
    """Nobody who may answer can be reached: neither the primary nor, for a read, a replica.

    Attributes:
        source: Name of the databases, or of the reader.
        reason: Why nobody answered.
        retry_after: Seconds until a retry makes sense; None if unknown.
    """

    def __init__(self, source: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(source, reason, retry_after)
        self.source = source
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.source} cannot be reached: {self.reason}{self._when()}"

    def _when(self) -> str:
        return "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"


class OwnWriteUnavailableError(DatabaseUnavailableError):
    """The user's own write cannot be shown now, and nothing older is shown in its place.

    Attributes:
        key: What was written; otherwise as of `DatabaseUnavailableError`.
    """

    def __init__(
        self, source: str, key: str, reason: str, retry_after: float | None = None
    ) -> None:
        super().__init__(source, reason, retry_after)
        self.args = source, key, reason, retry_after
        self.key = key

    def __str__(self) -> str:
        what = f"the recent write of {self.key!r} to {self.source}"
        return f"{what} cannot be shown: {self.reason}{self._when()}"
