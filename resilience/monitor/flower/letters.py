"""Dead letters on the page: found, run again, edited and run again, or let go."""

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice, zip_longest
from typing import Any

from celery.utils import uuid
from pydantic import BaseModel, ConfigDict, field_validator

from resilience.errors import ConfigurationError, OrderConflictError, text_of
from resilience.ledger import Letters, Which
from resilience.ledger.letter import Letter
from resilience.monitor.flower.state import short
from resilience.monitor.replay import RATE, SAMPLE, SAMPLE_SECONDS, Replay, Watched
from resilience.monitor.rows import last_error
from resilience.text import HIDDEN

WATCH_SECONDS = 600.0
AT_ONCE = 3
KEPT = 20
MESSAGE_LENGTH = 100_000
"""Characters of a message that the page gets: more is not edited in a browser."""


class Edited(BaseModel):
    """New arguments of a letter; what is hidden in them stands for what was there before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    args: list[Any]
    kwargs: dict[str, Any]

    @field_validator("args", "kwargs")
    @classmethod
    def _check_numbers(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON
        json.dumps(value, allow_nan=False)  # not all serializers of messages know them
        return value


class LetterActions:
    """What is done to the dead letters of an app, and the replays that this Flower has begun."""

    def __init__(self, letters: Letters) -> None:
        """Begin nothing yet."""
        self._letters = letters
        self._replays: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def progress(self) -> list[dict[str, Any]]:
        """Return how far the replays have come, newest first."""
        return [dict(row) for row in reversed(list(self._replays))]

    def find(self, which: Which, limit: int) -> dict[str, Any]:
        """Return the first of *which* letters, how many there are, and when the last one died."""
        jobs, newest = self._letters.extent(which)
        rows = [letter_row(letter) for letter in self._letters.find(which, limit=limit)]
        return {"jobs": jobs, "version": newest, "letters": rows}

    def discard(self, which: Which, jobs: int, by: Mapping[str, Any]) -> str:
        """Let letters go.

        Raises:
            OrderConflictError: Some were replayed or discarded since.
        """
        self._check(which, jobs)
        return f"{len(self._letters.discard(which, limit=jobs, **by))} discarded"

    def edit(self, which: Which, edited: Edited, by: Mapping[str, Any]) -> str:
        """Run a letter again with other arguments.

        Raises:
            OrderConflictError: It was replayed or discarded since.
            ConfigurationError: A hidden value stands where there was none.
        """
        shown = self._letters.find(which, limit=1)
        self._check(which, 1)
        edit = partial(_edited, shown=shown[0].message, edited=edited)
        replayed = self._letters.replay(which, new_id=uuid, limit=1, edit=edit, **by)
        if not replayed:
            self._check(which, 1)
        return f"replayed as {', '.join(replayed.values())}"

    def replay(self, which: Which, jobs: int, by: Mapping[str, Any]) -> str:
        """Begin to run letters again, a sample first; `progress` says how far that is.

        Raises:
            OrderConflictError: Some were replayed or discarded since, or too many replays run.
        """
        self._check(which, jobs)
        if sum(not row["over"] for row in self._replays) >= AT_ONCE:
            msg = f"{AT_ONCE} replays are under way; wait until one has ended"
            raise OrderConflictError(msg)
        replay = Replay(self._letters, which, rate=RATE, **by)
        steps = replay.run(jobs, sample=SAMPLE, seconds=SAMPLE_SECONDS, watch_seconds=WATCH_SECONDS)
        next(steps)  # at once: the next operator sees fewer
        what = short(which.fingerprint or which.task or which.dependency or "letters")
        row = {"id": uuid(), "what": what, "total": jobs, "replayed": len(replay.replayed)}
        row |= {"state": "begins", "over": False, **by}
        self._replays.append(row)
        threading.Thread(target=_go_on, args=(replay, steps, row), daemon=True).start()
        return f"{jobs} are replayed"

    def _check(self, which: Which, jobs: int) -> None:
        """Check that *which* letters are still the *jobs* that somebody saw.

        Raises:
            OrderConflictError: Some were replayed or discarded since.
        """
        left = self._letters.extent(which)[0]
        if left != jobs:
            msg = f"{left} letters match now, not the {jobs} that you saw; look again"
            raise OrderConflictError(msg)


def _go_on(replay: Replay, steps: Iterable[Watched], row: dict[str, Any]) -> None:
    """Replay the rest; show in *row* how far that is."""
    try:
        for watched in steps:
            row |= watched._asdict() | {"replayed": len(replay.replayed), "state": str(watched)}
        if replay.stopped:
            left = row["total"] - row["replayed"]
            row["state"] = f"stopped: the sample failed; {left} were not replayed"
    except Exception as error:  # noqa: BLE001 - of a thread; the page shows it
        row["state"] = f"stopped: {text_of(error) or repr(error)}"
    finally:
        row["over"] = True


def letter_row(letter: Letter) -> dict[str, Any]:
    """Return what the page shows of *letter*; only its own arguments may be long."""
    row = asdict(letter)
    message, errors = row.pop("message"), row.pop("errors")
    fields = message if isinstance(message, dict) else {}
    shown = {name: fields.get(name) for name in ("args", "kwargs")}
    editable = bool(fields) and _is_editable(shown)
    last = errors[-1] if errors and isinstance(errors[-1], dict) else {}
    return {
        **{name: short(value) for name, value in row.items()},
        "version": row["died"],
        "error": last_error(letter),
        "traceback": str(last.get("traceback") or "")[-2000:],
        "editable": editable,
        **(shown if editable else {name: short(str(one)) for name, one in shown.items()}),
    }


def _is_editable(shown: dict[str, Any]) -> bool:
    try:
        return len(json.dumps(shown, allow_nan=False)) <= MESSAGE_LENGTH
    except ValueError:  # NaN: the page shows it as text, and would send it back as such
        return False


def _edited(text: str, shown: Any, edited: Edited) -> str:  # noqa: ANN401 - any JSON
    """Return the message *text* with other arguments; *shown* is what the operator saw of it.

    Raises:
        ConfigurationError: It is no message of a job, or a hidden value stands where none was.
    """
    try:
        message = json.loads(text)
        for name in ("args", "kwargs"):
            message[name] = _filled(getattr(edited, name), shown[name], message[name])
            message["headers"].pop(f"{name}repr", None)  # it tells of the former ones
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        msg = f"the message cannot be edited: {text_of(error) or repr(error)}"
        raise ConfigurationError(msg) from error
    return json.dumps(message)


def _filled(new: Any, shown: Any, kept: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return *new* with what is hidden in it as it is *kept*, where the operator left it alone."""
    if new == shown:
        return kept
    if isinstance(new, dict) and isinstance(shown, dict) and isinstance(kept, dict):
        return {name: _filled(one, shown.get(name), kept.get(name)) for name, one in new.items()}
    if isinstance(new, list) and isinstance(shown, list) and isinstance(kept, list):
        return [_filled(*three) for three in islice(zip_longest(new, shown, kept), len(new))]
    if HIDDEN in json.dumps(new):
        msg = f"{HIDDEN} stands for a value that is not known there; write it out"
        raise ValueError(msg)
    return new
