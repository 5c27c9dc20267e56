"""Degradation objectives: how many answers are to be FULL, and how fast the budget is spent."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from resilience.levels import Level
from resilience.monitor.metrics import ANSWERS, MINUTES, Series, known_labels, read_counts
from resilience.tasks.resilience import Resilience

DIGITS_MAX = 15
"""No minute has so many, in seconds."""
Window = Annotated[timedelta, Field(ge=timedelta(hours=1), le=timedelta(days=35))]


class Objective(BaseModel):
    """At least the share *full* of the answers within *window* is to be FULL.

    An answer is a job that ended: at the level of its `Outcome` or `PartialResponse`, FULL with
    another result, FAILED with an error or late. Without a dependency and a task it is about all
    jobs of the app.

    Attributes:
        full: The share, between 0 and 1.
        window: From 1 hour to 35 days, such as `"30d"`.
        dependency: About the tasks of this dependency only.
        task: About this task only, whatever its dependency.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: Annotated[float, Field(gt=0, lt=1)]
    window: Window = timedelta(days=30)
    dependency: str | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """What it is about: `app`, `dependency:<name>` or `task:<name>`."""
        if self.task is not None:
            return f"task:{self.task}"
        return "app" if self.dependency is None else f"dependency:{self.dependency}"

    def levels(self, until: "Counts", before: "Counts") -> dict[str, float]:
        """Return the answers that this is about, between two moments, by level."""
        levels = dict.fromkeys(Level.__members__, 0.0)
        for series, count in until.items():
            if series[0] == ANSWERS and series[3] in levels:
                _, task, dependency, level = series
                if self.task in {None, task} and self.dependency in {None, dependency}:
                    levels[level] += max(0.0, count - before.get(series, 0.0))
        return levels

    def burn_rate(self, levels: Mapping[str, float]) -> float:
        """Return the share of the answers that were not FULL, over the share that may be so."""
        total = sum(levels.values())
        return (1 - levels["FULL"] / total) / (1 - self.full) if total else 0.0


Counts = Mapping[Series, float]
"""Answers, and minutes below FULL, up to some moment."""


def counts_until(app: Resilience, moments: Iterable[float]) -> tuple[Counts, list[Counts]]:
    """Return the counts until now, and those up to each of the *moments*, in fleet time.

    Raises:
        StoreUnavailableError: The store does not answer.
        ConfigurationError: The app has no store.
    """
    store, known, history = app.store, known_labels(app), app.store.key("history")
    names: Any = store.read(history, lambda client: client.hkeys(history), [])
    answers, none = store.key("answers"), dict[bytes, bytes]()
    fields = store.read(answers, lambda client: client.hgetall(answers), none)
    times = sorted(int(name) for name in names if name.isdigit() and len(name) <= DIGITS_MAX)
    # The first entry since a moment has what was counted by then; see counts.lua.
    wanted = [next((at for at in times if at >= moment), None) for moment in moments]
    entries: dict[int | None, Counts] = {None: read_counts(fields, known)}
    if needed := sorted({at for at in wanted if at is not None}):
        texts: Any = store.run(lambda client: client.hmget(history, [*map(str, needed)]))
        for at, text in zip(needed, texts, strict=True):
            entries[at] = {}
            with suppress(ValueError, AttributeError, RecursionError):  # what is no JSON object
                entries[at] = read_counts(json.loads(text or b"{}"), known)
    return entries[None], [entries[at] for at in wanted]


def objective_rows(app: Resilience) -> dict[str, dict[str, Any]]:
    """Return how each objective of the app does within its window, by name.

    The keys: `full`, the share that is to be FULL; `window_seconds`; `full_ratio`, the
    share that was FULL, None without answers; `budget_left`, a share of the error budget, negative
    if it is overspent; `minutes_below_full` of its dependency, or of the worst dependency if it is
    about the whole app, None if it is about a task.

    Raises:
        StoreUnavailableError: The store does not answer.
        ConfigurationError: The app has no store.
    """
    objectives = [each for one in app.listeners for each in getattr(one, "objectives", ())]
    if not objectives:
        return {}
    now = app.fleet_time()
    until, entries = counts_until(app, [now - each.window.total_seconds() for each in objectives])
    befores = zip(objectives, entries, strict=True)
    return {each.name: _row(each, until, before) for each, before in befores}


def _row(objective: Objective, until: Counts, before: Counts) -> dict[str, Any]:
    levels, minutes = objective.levels(until, before), _minutes(until, before)
    total, name = sum(levels.values()), objective.dependency
    below = max(minutes.values(), default=0) if name is None else minutes[name]
    return {
        "full": objective.full,
        "window_seconds": objective.window.total_seconds(),
        "full_ratio": levels["FULL"] / total if total else None,
        "minutes_below_full": below if objective.task is None else None,
        "budget_left": 1 - objective.burn_rate(levels),
    }


def _minutes(until: Counts, before: Counts) -> Counter[str]:
    """Return the minutes below FULL between two moments, by dependency."""
    kept = ((key, count) for key, count in until.items() if key[0] == MINUTES)
    return Counter({key[1]: int(max(0.0, count - before.get(key, 0.0))) for key, count in kept})


def minutes_below_full(app: Resilience) -> dict[str, int]:
    """Return in how many minutes of this month (UTC) a dependency had an answer that was not FULL.

    Counted in the processes of apps with a `PrometheusListener`; the worst dependency first.

    Raises:
        StoreUnavailableError: The store does not answer.
        ConfigurationError: The app has no store.
    """
    today = datetime.fromtimestamp(app.fleet_time(), UTC)
    began = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    until, (before,) = counts_until(app, [began])
    return dict(_minutes(until, before).most_common())
