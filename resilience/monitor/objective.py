"""Degradation objectives: how many answers are to be FULL, and how fast the budget is spent."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from resilience.levels import Level
from resilience.store import Store
from resilience.tasks.resilience import Resilience

BURN_WINDOWS: Final = {"5m": 300, "1h": 3_600, "6h": 21_600, "3d": 259_200}
UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
LEVELS: Final = {level.name for level in Level}


def _duration(given: object) -> object:
    """Return the duration that a text such as `30d` stands for; anything else as it is."""
    if isinstance(given, str) and given[:-1].isdecimal() and given[-1] in UNITS:
        return timedelta(**{UNITS[given[-1]]: int(given[:-1])})
    return given


Window = Annotated[
    timedelta,
    BeforeValidator(_duration),
    Field(ge=timedelta(hours=1), le=timedelta(days=35)),
]


class Objective(BaseModel):
    """At least the share *full* of the answers within *window* is to be FULL.

    An answer is a job that ended: at the level of its `Outcome` or `PartialResponse`, FULL with
    another result, FAILED with an error or late. Without a dependency and a task it is about all
    jobs of the app.

    Attributes:
        full: The share, between 0 and 1.
        window: From 1 hour to 35 days, such as `"30d"`.
        dependency: About the tasks of this dependency only.
        task: About this task only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: Annotated[float, Field(gt=0, lt=1)]
    window: Window = timedelta(days=30)
    dependency: str | None = None
    task: str | None = None

    @model_validator(mode="after")
    def _about_one(self) -> Self:
        if self.dependency is not None and self.task is not None:
            msg = f"name the task {self.task!r} or the dependency {self.dependency!r}, not both"
            raise ValueError(msg)
        return self

    @property
    def name(self) -> str:
        """What it is about: `app`, `dependency:<name>` or `task:<name>`."""
        if self.task is not None:
            return f"task:{self.task}"
        return "app" if self.dependency is None else f"dependency:{self.dependency}"

    def burn_rate(self, levels: Mapping[str, float]) -> float:
        """Return the share of the answers that were not FULL, over the share that may be so."""
        total = sum(levels.values())
        worse = total - levels.get(Level.FULL.name, 0.0)
        return worse / total / (1 - self.full) if total else 0.0


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers up to some moment.

    Attributes:
        counts: Their number by task, dependency and name of the level.
        minutes: Minutes with an answer that was not FULL, by dependency.
    """

    counts: Mapping[tuple[str, str, str], float]
    minutes: Mapping[str, int]

    @classmethod
    def parse(cls, fields: Mapping[Any, Any]) -> Self:
        """Return what the store keeps, without what none of our processes can have written."""
        counts: Counter[tuple[str, str, str]] = Counter()
        minutes: dict[str, int] = {}
        for name, value in fields.items():
            with suppress(ValueError, TypeError, RecursionError):
                match json.loads(name):
                    case [str(task), str(dependency), str(level)] if level in LEVELS:
                        counts[task, dependency, level] += number_of(value)
                    case [str(dependency)]:
                        minutes[dependency] = int(number_of(_text(value).partition("|")[0]))
        return cls(counts, minutes)

    def levels(self, about: Objective, before: "Answers") -> dict[str, float]:
        """Return the answers that *about* is about by level, without those of *before*."""
        found = dict.fromkeys((level.name for level in Level), 0.0)
        for key, count in self.counts.items():
            task, dependency, level = key
            if about.task in {None, task} and about.dependency in {None, dependency}:
                found[level] += max(0.0, count - before.counts.get(key, 0.0))
        return found


def number_of(value: object) -> float:
    """Return the count that the store keeps as *value*.

    Raises:
        ValueError: It is no count.
    """
    number = float(_text(value))
    if not 0 <= number < math.inf:
        raise ValueError(value)
    return number


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def answers_since(store: Store, moments: Iterable[float]) -> tuple[Answers, list[Answers]]:
    """Return the answers until now, and those up to each of the *moments*, in fleet time.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    history = store.key("history")
    fields, names = store.run(
        lambda client: (client.hgetall(store.key("answers")), client.hkeys(history))
    )
    times = sorted(int(name) for name in names if name.isdigit())  # type: ignore[union-attr] # bytes
    # The first entry since a moment has what was counted by then; see counts.lua.
    wanted = [next((at for at in times if at >= moment), None) for moment in moments]
    until, entries = Answers.parse(fields), {}  # type: ignore[arg-type] # redis-py's types are vague
    if needed := sorted({at for at in wanted if at is not None}):
        texts = store.run(lambda client: client.hmget(history, list(map(str, needed))))
        entries = dict(zip(needed, map(_parsed, texts), strict=True))  # type: ignore[arg-type]
    return until, [until if at is None else entries[at] for at in wanted]


def _parsed(text: bytes | None) -> Answers:
    with suppress(ValueError, RecursionError):
        fields = json.loads(text or b"{}")
        if isinstance(fields, dict):
            return Answers.parse(fields)
    return Answers({}, {})


def minutes_below_full(resilience: Resilience) -> dict[str, int]:
    """Return in how many minutes of this month (UTC) a dependency had an answer that was not FULL.

    Counted in processes whose app has a `PrometheusListener`; by dependency, the worst first.

    Raises:
        StoreUnavailableError: The store does not answer.
        ConfigurationError: The app has no store.
    """
    until, (before,) = answers_since(resilience.store, [month_of(resilience.fleet_time())])
    return minutes_between(until, before)


def month_of(now: float) -> float:
    """Return when the month of *now* began, in UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def minutes_between(until: Answers, before: Answers) -> dict[str, int]:
    """Return the minutes below FULL between two moments by dependency, the worst first."""
    found = {name: all_ - before.minutes.get(name, 0) for name, all_ in until.minutes.items()}
    return dict(sorted(((n, m) for n, m in found.items() if m > 0), key=lambda one: -one[1]))
