"""The answers to a claim on a key."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller has the key until its lease expires."""


@dataclass(frozen=True, slots=True)
class Running:
    """Another owner has the key.

    Attributes:
        owner: The other owner.
        seconds: Seconds until its lease expires unless it is renewed.
    """

    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """What the key stands for was done before.

    Attributes:
        result: Its recorded result, as JSON.
    """

    result: str
