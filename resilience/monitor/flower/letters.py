"""Dead letters on the page: found, run again, edited and run again, or let go."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice, zip_longest
from typing import Any

from celery.utils import uuid
from pydantic import BaseModel, ConfigDict

from resilience.clock import SystemClock
from resilience.errors import ConfigurationError, OrderConflictError, text_of
from resilience.ledger import Letters, Which
from resilience.ledger.letter import Letter
from resilience.ledger.redaction import HIDDEN
from resilience.monitor.flower.state import short
from resilience.monitor.replay import RATE, SAMPLE, SAMPLE_SECONDS, Replay, Watched

WATCH_SECONDS = 600.0
STEP_SECONDS = 1.0
AT_ONCE = 3
KEPT = 20
MESSAGE_LENGTH = 100_000
"""Characters of a message that the page gets: more is not edited in a browser."""


class Edited(BaseModel):
    """New arguments of a letter; what is hidden in them stands for what was there before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    args: list[Any]
    kwargs: dict[str, Any]


class Desk:
    """The dead letters of an app, and the replays that this Flower has begun."""

    def __init__(self, letters: Letters) -> None:
        """Begin nothing yet."""
        self._letters = letters
        self._replays: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def progress(self) -> list[dict[str, Any]]:
        """Return how far the replays have come, newest first."""
        return [dict(one) for one in reversed(list(self._replays))]

    def find(self, which: Which, limit: int) -> dict[str, Any]:
        """Return the first of *which* letters, how many there are, and when the last one died."""
        jobs, newest = self._letters.extent(which)
        found = [letter_row(one) for one in self._letters.find(which, limit=limit)]
        return {"jobs": jobs, "version": newest, "letters": found}

    def check(self, which: Which, jobs: int) -> None:
        """Check that *which* letters are still the *jobs* that somebody saw.

        Raises:
            OrderConflictError: Some were replayed or discarded since.
        """
        left = self._letters.extent(which)[0]
        if left != jobs:
            msg = f"{jobs - left} of {jobs} letters were replayed or discarded since; look again"
            raise OrderConflictError(msg)

    def discard(self, which: Which, jobs: int, given: Mapping[str, str]) -> str:
        """Let letters go. Raises as `check`."""
        self.check(which, jobs)
        gone = self._letters.discard(
            which, limit=jobs, actor=given["actor"], reason=given["reason"]
        )
        return f"{len(gone)} discarded"

    def edit(self, which: Which, edited: Edited, given: Mapping[str, str]) -> str:
        """Run a letter again with other arguments.

        Raises:
            OrderConflictError: It was replayed or discarded since.
            ConfigurationError: A hidden value stands where there was none.
        """
        shown = self._letters.find(which, limit=1)
        self.check(which, 1)
        made = self._letters.replay_edited(
            which,
            lambda text: _edited(text, shown[0].message, edited),
            new_id=uuid,
            actor=given["actor"],
            reason=given["reason"],
        )
        if not made:
            self.check(which, 1)
        return f"replayed as {', '.join(made.values())}"

    def replay(self, which: Which, jobs: int, given: Mapping[str, str]) -> str:
        """Begin to run letters again, a sample first; `progress` says how far that is.

        Raises:
            OrderConflictError: As `check`, or too many replays are under way.
        """
        self.check(which, jobs)
        if sum(not one["over"] for one in self._replays) >= AT_ONCE:
            msg = f"{AT_ONCE} replays are under way; wait until one has ended"
            raise OrderConflictError(msg)
        what = which.fingerprint or which.task or which.dependency or "letters"
        shown = {"id": uuid(), "what": short(what), "at": SystemClock().now(), "total": jobs}
        shown |= {"replayed": 0, "state": "begins", "over": False, **given}
        replay = Replay(self._letters, which, rate=RATE, **given)
        sample = replay.start(min(SAMPLE, jobs))  # at once: the next operator sees fewer
        self._replays.append(shown)
        rest = threading.Thread(target=self._go_on, args=(replay, sample, shown), daemon=True)
        rest.start()
        return f"{jobs} are replayed"

    def _go_on(
        self, replay: Replay, replayed: dict[str, str | None], shown: dict[str, Any]
    ) -> None:
        total = shown["total"]
        try:
            if total > SAMPLE:
                watched = _watch(replay, replayed, shown, SAMPLE_SECONDS)
                if watched.dead or watched.failed:
                    left = total - len(replayed)
                    shown["state"] = f"stopped: the sample failed; {left} were not replayed"
                    return
                replayed |= replay.start(total - len(replayed))
            _watch(replay, replayed, shown, WATCH_SECONDS)
        except Exception as error:  # noqa: BLE001 - of a thread; the page shows it
            shown["state"] = f"stopped: {text_of(error) or repr(error)}"
        finally:
            shown["over"] = True


def _watch(
    replay: Replay, replayed: Mapping[str, str | None], shown: dict[str, Any], seconds: float
) -> Watched:
    """Show how far the jobs have come until they have ended, at most so many seconds."""
    until = SystemClock.monotonic() + seconds
    while True:
        watched = replay.watch(replayed, seconds=0.0)
        shown |= asdict(watched) | {"replayed": len(replayed), "state": str(watched)}
        if not watched.under_way or SystemClock.monotonic() >= until:
            return watched
        threading.Event().wait(STEP_SECONDS)


def letter_row(letter: Letter) -> dict[str, Any]:
    """Return what the page shows of *letter*; only its own arguments may be long."""
    row = letter.to_json()
    message = row.pop("message")
    fields = message if isinstance(message, dict) else {}
    shown = {name: fields.get(name) for name in ("args", "kwargs")}
    editable = len(json.dumps(shown)) <= MESSAGE_LENGTH and bool(fields)
    errors = [one if isinstance(one, dict) else {"text": one} for one in row.pop("errors")]
    last = {name: short(errors[-1].get(name)) for name in ("type", "text")} if errors else {}
    return {
        **{name: short(value) for name, value in row.items()},
        "version": row["died"],
        "error": last,
        "traceback": str(errors[-1].get("traceback") or "")[-2000:] if errors else "",
        "editable": editable,
        **(shown if editable else {name: short(str(one)) for name, one in shown.items()}),
    }


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
