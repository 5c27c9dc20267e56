"""What is to run all the time."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from resilience.dependency import Name

STOP_SECONDS = 10.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Program:
    """A command that is to run all the time, in a process group of its own.

    Attributes:
        name: Stands before every line of its output; unique among the programs run together.
        command: The program, looked up in PATH, and its arguments; no shell is involved.
        environment: Variables on top of the inherited environment and of PYTHONUNBUFFERED=1, which
            lets the lines of a Python program come when it prints them.
        stop_seconds: Time between SIGTERM to the program and SIGKILL to its whole group, not
            negative.
        stage: Programs are stopped from the highest stage to the lowest, each stage when all of
            the one above is gone; within a stage all at once. All start at once. Give a server a
            lower stage than its clients.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
    """

    name: Name
    command: Annotated[Sequence[str], Field(min_length=1)]
    _: KW_ONLY
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = STOP_SECONDS
    stage: Annotated[int, Field(ge=0)] = 0
