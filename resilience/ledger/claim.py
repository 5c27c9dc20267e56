"""What a claim on a key comes to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimed:
    """The key is the caller's until its lease runs out."""


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody else has the key.

    Attributes:
        owner: Who.
        seconds: When the lease runs out unless it is renewed.
    """

    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """It was done before.

    Attributes:
        result: What came of it, as JSON.
    """

    result: str
