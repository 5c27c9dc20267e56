"""The plan of a game day, and how it is read from a TOML file."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from resilience.declared import nearest
from resilience.errors import ConfigurationError
from resilience.faults import Fault
from resilience.faults import Kind as DependencyKind
from resilience.levels import Level

ServerKind = Literal["stop", "freeze", "black-hole", "slow"]
WorkerKind = Literal["kill-worker", "kill-child"]
Kind = Literal[ServerKind, WorkerKind, "load", DependencyKind]
LOAD_FACTOR: Final = 2.0
"""The factor of `load` unless the plan says otherwise."""
CALLS_MAX: Final = 1_000_000
"""Most calls of one workload."""
SERVERS: Final = ("broker", "store", "database")
LevelName = Literal["full", "stale", "reduced", "static", "failed"]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CallTable(_Table):
    """A call with its arguments.

    Attributes:
        call: A name of the plan's `calls`, a task, or `module:NAME` of a fan-out or a function.
        args: Positional arguments of a task or a function.
        kwargs: Keyword arguments of a task or a function.
        budget: Seconds for the answer; None: the budget of the entry of `calls`, if any.
    """

    call: Annotated[str, Field(min_length=1)]
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    budget: Seconds | None = None


class Steady(CallTable):
    """A call that must succeed before and after the workload.

    Attributes:
        level: Worst level that the answer may have.
        within: Seconds within which the answer must come.
        equals: The expected answer; None: any answer.
    """

    level: LevelName = "full"
    within: Seconds = 5.0
    equals: Any = None


class Workload(CallTable):
    """Calls that are made during the faults; a plan sets either `rate` or `count`.

    Attributes:
        rate: Calls a second, evenly spread over the game day.
        count: Total number of calls, evenly spread over the game day.
    """

    rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    count: Annotated[int, Field(gt=0, le=CALLS_MAX)] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.rate is None) == (self.count is None):
            msg = "a workload needs either 'rate' or 'count'; write exactly one of them"
            raise ValueError(msg)
        return self


class FaultTable(_Table):
    """What breaks, when and for how long.

    Attributes:
        kind: `stop`, `freeze`, `black-hole` or `slow` for a server; `kill-worker` or `kill-child`
            for a worker; `load`; or a kind of `Fault` for the calls of a dependency.
        target: A server (`broker`, `store`, `database`), the dependency whose worker or whose calls
            are hit, or `default` for the worker of the default queue. `load` has no target.
        at: When the fault begins, in seconds from the beginning of the workload.
        duration: How long the fault lasts, in seconds; called `for` in the file. A kill has none.
        delay: Delay of `slow` and `latency`, in seconds.
        rate: Share of the calls of a dependency that are hit.
        factor: Factor by which `load` multiplies the rates.
    """

    kind: Kind
    target: str = ""
    at: Annotated[float, Field(ge=0, le=86_400)]
    duration: Annotated[Seconds | None, Field(alias="for")] = None
    delay: Seconds | None = None
    rate: Share | None = None
    factor: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        kills, of_server = self.kind in get_args(WorkerKind), self.kind in get_args(ServerKind)
        wrong = {
            f"a {self.kind} has no duration; leave out 'for'": (
                kills and self.duration is not None
            ),
            f"{self.kind} needs the key 'for', in seconds": not kills and self.duration is None,
            f"{self.kind} needs the key 'delay', in seconds": self._delays and self.delay is None,
            f"only slow and latency have a 'delay'; leave it out of {self.kind}": (
                not self._delays and self.delay is not None
            ),
            f"{self.kind} needs a target: one of {', '.join(SERVERS)}": (
                of_server and self.target not in SERVERS
            ),
            f"{self.kind} needs a target: the name of a dependency": (
                self.kind != "load" and not self.target
            ),
            f"only faults of a dependency have a 'rate'; leave it out of {self.kind}": (
                not self.of_dependency and self.rate is not None
            ),
            f"only load has a 'factor'; leave it out of {self.kind}": (
                self.kind != "load" and self.factor is not None
            ),
            "load has no target; leave out 'target'": self.kind == "load" and bool(self.target),
        }
        for msg, holds in wrong.items():
            if holds:
                raise ValueError(msg)
        return self

    @property
    def _delays(self) -> bool:
        return self.kind in {"slow", "latency"}

    @property
    def of_dependency(self) -> bool:
        """Whether the fault hits the calls of a dependency."""
        return self.kind in get_args(DependencyKind)

    def fault(self) -> Fault:
        """Return the fault to set for the dependency."""
        kind: Any = self.kind
        delay = self.delay or 0.0
        return Fault(dependency=self.target, kind=kind, rate=self.rate or 1.0, delay_seconds=delay)

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


class Promises(_Table):
    """The limits that the app must keep; None: not promised.

    Attributes:
        lost: Largest number of jobs that were accepted, but neither ended nor are in the ledger.
        duplicates: Largest number of jobs whose body ran to its end more than once.
        unexpected: Largest number of jobs that ended although nobody published them.
        failed: Largest number of requests without an answer, or with an answer of level FAILED.
        p99: Seconds within which 99 of 100 requests are answered.
        level: Worst level of an answer that is not FAILED.
        marked: Whether every degraded answer must say that it is degraded, and why.
        recovered: Most seconds from the end of the workload until the steady state holds again.
    """

    lost: Count | None = 0
    duplicates: Count | None = 0
    unexpected: Count | None = 0
    failed: Count | None = None
    p99: Seconds | None = None
    level: LevelName | None = None
    marked: bool = True
    recovered: Seconds = 10.0


class Stop(_Table):
    """Conditions that end the game day early; they are checked twice a second.

    Attributes:
        failed_share: Ends it when this share of the last 20 requests has failed.
        command: Ends it when this shell command exits with a code other than 0.
    """

    failed_share: Share | None = None
    command: str | None = None


class Stage(_Table):
    """What runs besides broker, store and workers.

    Attributes:
        postgres: Names of environment variables that receive the address of a throw-away
            PostgreSQL, which then also holds the ledger. Empty: no PostgreSQL, and the ledger is a
            file.
        prepare: Command that runs before the workers start, for example to make tables.
    """

    postgres: list[str] = []
    prepare: list[str] = []


class Plan(_Table):
    """A game day.

    Attributes:
        seconds: Duration of the workload.
        calls: `module:NAME` of a mapping of names to calls, as for `resilience prove`.
        stage: What runs besides broker, store and workers.
        steady: Calls that must succeed before and after the workload.
        workload: Calls that are made during the faults.
        faults: What breaks, and when.
        promises: The limits that the app must keep.
        stop: Conditions that end the game day early.
    """

    seconds: Annotated[float, Field(gt=0, le=86_400)]
    calls: str | None = None
    stage: Stage = Stage()
    steady: Annotated[list[Steady], Field(min_length=1)]
    workload: Annotated[list[Workload], Field(min_length=1)]
    faults: list[FaultTable] = []
    promises: Promises = Promises()
    stop: Stop = Stop()

    @model_validator(mode="after")
    def _check_workload(self) -> Self:
        for number, one in enumerate(self.workload, 1):
            calls = one.count or (one.rate or 0.0) * self.seconds
            if not 1 <= calls <= CALLS_MAX:
                msg = (
                    f"[[workload]] {number} makes {calls:g} calls in {self.seconds:g} s, and must "
                    f"make at least one and at most {CALLS_MAX}; change rate or seconds"
                )
                raise ValueError(msg)
        loads = any(one.kind == "load" for one in self.faults)
        if loads and not any(one.rate for one in self.workload):
            msg = "load multiplies rates, and no workload has one; write rate in place of count"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_overlaps(self) -> Self:
        """Check that a server is not broken in two ways at once."""
        ends: dict[str, float] = {}
        for fault in sorted(self.faults, key=lambda one: one.at):
            if fault.kind not in get_args(ServerKind):
                continue
            if fault.at < ends.get(fault.target, 0.0):
                msg = (
                    f"the fault {str(fault)!r} begins at {fault.at:g} s, and another fault of "
                    f"{fault.target} ends at {ends[fault.target]:g} s; let one follow the other"
                )
                raise ValueError(msg)
            ends[fault.target] = fault.at + (fault.duration or 0.0)
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        for fault in self.faults:
            end = fault.at + (fault.duration or 0.0)
            if end > self.seconds:
                msg = (
                    f"the fault {str(fault)!r} ends at {end:g} s, after the workload; set "
                    f"'seconds' to at least {end:g}, or make the fault shorter"
                )
                raise ValueError(msg)
            if fault.target == "database" and not self.stage.postgres:
                msg = (
                    f"the fault {str(fault)!r} needs a throw-away database; write "
                    'postgres = ["NAME_OF_A_VARIABLE"] in [stage]'
                )
                raise ValueError(msg)
        return self


def level_of(name: LevelName) -> Level:
    """Return the level that the plan calls *name*."""
    return Level[name.upper()]


def read_plan(path: Path) -> Plan:
    """Return the plan in a file.

    Raises:
        ConfigurationError: The file cannot be read, is not TOML, or a value is wrong. The message
            has a line for each mistake: file, table, key, value, and what to write instead.
    """
    try:
        return Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ConfigurationError("\n".join(_mistakes(path, error))) from error
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: {error}; write a plan as docs/gameday.md describes"
        raise ConfigurationError(msg) from error


def _mistakes(path: Path, error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        *_, key = one["loc"] or ("",)
        value = "" if one["type"] in {"missing", "value_error"} else f" = {one['input']!r}"
        yield f"{path}: {_place(one['loc'])}{value}: {_mend(one, str(key))}"


def _place(loc: Sequence[int | str]) -> str:
    """Return the table and the key at *loc*: `[[faults]] 2, kind`."""
    *tables, key = loc or ("the plan",)
    if isinstance(key, int):
        return f"[[{tables[0]}]] {key + 1}"
    if not tables:
        return str(key)
    number = f"[[{tables[0]}]] {int(tables[1]) + 1}" if len(tables) > 1 else f"[{tables[0]}]"
    return f"{number}, {key}"


def _mend(one: Mapping[str, Any], key: str) -> str:
    if one["type"] == "extra_forbidden":
        keys = {
            field.alias or name
            for table in (Plan, Stage, Steady, Workload, FaultTable, Promises, Stop)
            for name, field in table.model_fields.items()
        }
        near = "".join(f"; did you mean {name!r}?" for name in nearest(key, keys - {key}))
        return f"the key is unknown in this table{near or '; leave it out'}"
    if one["type"] == "missing":
        return "the key is missing; add it"
    return str(one["msg"]).removeprefix("Value error, ")
