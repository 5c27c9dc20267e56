"""What the page shows, as plain JSON values, looked up only while somebody looks at it."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

from resilience.broker.lengths import oldest_of
from resilience.clock import SystemClock
from resilience.errors import text_of
from resilience.flags.document import BROWNOUT
from resilience.ledger import Which
from resilience.levels import Level
from resilience.monitor.circuits import history_of
from resilience.monitor.flower.letters import letter_row
from resilience.monitor.flower.state import DegradationState
from resilience.monitor.flower.timeline import timeline
from resilience.monitor.objective import minutes_below_full
from resilience.monitor.status import AWAY, look
from resilience.tasks.publishing import publish_within
from resilience.tasks.resilience import Resilience

logger = logging.getLogger(__name__)

FRESH_SECONDS = 0.9
"""However many people look, the store, the broker and the ledger are asked about once a second."""
PATIENCE_SECONDS = 0.2
"""Whoever has waited so long for a look gets the one before, with its age."""
FIRST_SECONDS = 10.0
QUIET_SECONDS = 30.0
"""Workers send heartbeats every two seconds."""
COSTLY_SECONDS, REST = 0.05, 20
"""What takes longer is asked again only after so many times as long."""
AGES_SECONDS = 0.5
CAUSES = 50
SHOWN = 100


class View:
    """What the page shows.

    The state of Flower is read in its event loop only; all else is asked in another thread, by one
    look at a time.
    """

    def __init__(
        self,
        adopted: Resilience,
        state: DegradationState,
        workers: Mapping[str, Mapping[str, Any]],
        run: Callable[[Callable[[], dict[str, Any]]], asyncio.Future[dict[str, Any]]],
        command: str,
    ) -> None:
        """Look at nothing yet.

        Args:
            adopted: What the app declared.
            state: What Flower has heard.
            workers: What workers have answered to Flower, by name.
            run: Runs a function in another thread.
            command: Begins each command that the page suggests: `celery -A shop`.
        """
        self._adopted = adopted
        self._state = state
        self._workers = workers
        self._run = run
        self._command = command
        self._letters = adopted.ledger.letters
        self._looking: asyncio.Future[dict[str, Any]] | None = None
        self._began = float("-inf")
        self._last: dict[str, Any] = {"unknown": {"page": "its first look is not over"}}
        self._rests: dict[str, float] = {}
        self._kept: dict[str, list[Any]] = {}
        self._sent: dict[str, float | None] = {}

    async def read(self) -> dict[str, Any]:
        """Return what is known: a look that is new, or the last one if that takes longer."""
        now = SystemClock.monotonic()
        if self._looking is None and now - self._began >= FRESH_SECONDS:
            self._began = now
            alive = [queues for queues, _ in self._alive()]
            self._looking = self._run(partial(self._look, Counter(chain(*alive)) or None))
            self._looking.add_done_callback(self._take)
        if self._looking is not None:
            seconds = PATIENCE_SECONDS if "at" in self._last else FIRST_SECONDS
            await asyncio.wait({self._looking}, timeout=seconds)
            await asyncio.sleep(0)  # lets `_take` run first
        return self._last | self._heard()

    def outdate(self) -> None:
        """Look again when somebody asks: an order has changed what there is."""
        self._began = float("-inf")
        self._rests = {}

    async def note_level(self) -> None:
        """Keep the level for the chart."""
        found = await self.read()
        known = found.get("level") and "store" not in found["unknown"]
        level = int(Level[found["level"]]) if known else None
        self._state.levels.append((round(SystemClock().now()), level))

    def _take(self, looked: asyncio.Future[dict[str, Any]]) -> None:
        self._looking = None
        try:
            self._last = looked.result()
        except Exception as error:
            logger.exception("the Degradation page could not look")
            self._last = self._last | {"unknown": {"page": text_of(error) or repr(error)}}

    def _heard(self) -> dict[str, Any]:
        """Return what Flower itself knows, which asks nobody."""
        state, now, unknown = self._state, SystemClock().now(), dict(self._last["unknown"])
        if state.heard is None or now - state.heard > QUIET_SECONDS:
            since = "since it started" if state.heard is None else f"for {now - state.heard:.0f} s"
            unknown["events"] = (
                f"Flower has heard of no worker {since}: do workers run, and can Flower reach the "
                "broker? Meanwhile answers, incidents and workers are missing here"
            )
        alive = list(self._alive())
        return {
            "now": now,
            "unknown": unknown,
            "bulkheads": [_served(row, alive) for row in self._last.get("bulkheads", ())],
            "answers": list(reversed(state.answers))[:SHOWN],
            "levels": list(zip(*state.levels, strict=True)) or [[], []],
            "timeline": timeline(state.incidents, self._last.get("audited", ()))[:SHOWN],
        }

    def _alive(self) -> Iterable[tuple[set[str], int]]:
        """Yield queues and running jobs of each worker that has sent a heartbeat lately."""
        for name, worker in self._state.workers.items():
            queues = self._workers.get(name, {}).get("active_queues")
            if worker.alive and isinstance(queues, list):
                yield {str(one.get("name")) for one in queues}, worker.active or 0

    def _look(self, workers: Mapping[str, int] | None) -> dict[str, Any]:
        """Look; workers are asked what they consume only if Flower has not heard of any."""
        adopted = self._adopted
        found = look(adopted, self._command, ask_workers=workers is None, workers=workers)
        try:
            publish_within(AGES_SECONDS, lambda up: self._ask_ages(up, found["queues"]))
        except AWAY as error:
            found["unknown"].setdefault("broker", text_of(error) or repr(error))
        found |= {"began": SystemClock().now(), "bulkheads": list(self._bulkheads(found))}
        if "store" not in found["unknown"]:
            document = adopted.flags.document
            for row in found["flags"]:
                trial = document.trials.get(row["feature"])
                row |= {"version": row["order_version"], "trial": trial and trial.until}
            order = document.orders.get(BROWNOUT)
            said = order.said if order and order.until > found["at"] else "off"
            found["brownout"] = {"version": order.version if order else 0, "order": said}
        for name, source, ask in (
            ("causes", "ledger", self._causes),
            ("audits", "ledger", self._audits),
            ("changes", "store", self._changes),
            ("below_full", "store", lambda: list(minutes_below_full(adopted).items())),
        ):
            found[name] = self._kept_from(name, source, ask, found["unknown"])
        return found | {"audited": [*found.pop("audits"), *found.pop("changes")]}

    def _kept_from(
        self, name: str, source: str, ask: Callable[[], list[Any]], unknown: dict[str, str]
    ) -> list[Any]:
        """Return what a source answers or, while it is away or has to rest, answered last."""
        began = SystemClock.monotonic()
        if source not in unknown and began >= self._rests.get(name, began):
            try:
                self._kept[name] = ask()
            except AWAY as error:
                unknown[source] = text_of(error) or repr(error)
            took = SystemClock.monotonic() - began
            self._rests[name] = began + (REST * took if took > COSTLY_SECONDS else 0.0)
        return self._kept.get(name, [])

    def _causes(self) -> list[dict[str, Any]]:
        """Return the causes of dead letters, each with one of its letters."""
        names = ("fingerprint", "task", "dependency", "reason", "error")
        return [
            {"jobs": jobs, "oldest": oldest, "newest": newest} | {name: row[name] for name in names}
            for jobs, oldest, newest, letter in self._letters.causes(Which(), limit=CAUSES)
            for row in [letter_row(letter)]
        ]

    def _audits(self) -> list[dict[str, Any]]:
        """Return who ordered what, as far as the ledger knows."""
        orders = [
            {"at": one.at, "what": f"flag {one.said}", "name": name, **_by(one)}
            for name, one in self._adopted.ledger.orders.recent(limit=SHOWN)
        ]
        return orders + [
            {"at": one.at, "what": one.action, "name": one.job, "task": one.task, **_by(one)}
            for one in self._letters.audit(limit=SHOWN)
        ]

    def _changes(self) -> list[dict[str, Any]]:
        """Return the last changes of all circuits."""
        return [
            {"what": change.event, "name": name, **change.model_dump(exclude_none=True)}
            for name in self._adopted.dependencies
            for change in history_of(self._adopted, name)
        ]

    def _ask_ages(self, given_up: threading.Event, depths: Mapping[str, int]) -> None:
        """Learn when the oldest message of each queue was published, where a broker knows that."""
        self._sent = {}
        waiting = [name for name, depth in depths.items() if depth]
        if waiting:
            with self._adopted.app.producer_or_acquire(None) as producer:
                for name in waiting:
                    if not given_up.is_set():
                        self._sent[name] = oldest_of(producer.channel, name)

    def _bulkheads(self, found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """Yield a row for each dependency, and for the other queues."""
        holds = {one["name"]: one for one in found["holds"]}
        owned = {name: one.queues for name, one in self._adopted.dependencies.items()}
        others = set(found["queues"]).difference(*owned.values())
        for name, queues in {**owned, **{queue: (queue,) for queue in sorted(others)}}.items():
            hold = holds.get(name)
            depths = {one: found["queues"].get(one) for one in queues}
            known = [depth for depth in depths.values() if depth is not None]
            sent = [at for one in queues if (at := self._sent.get(one)) is not None]
            yield {
                "name": name,
                "depth": sum(known) if known else None,
                "queues": depths,
                "oldest": max(0.0, found["at"] - min(sent)) if sent else None,
                "held": hold,
                "held_queues": [one for one in queues if one in holds and one != name],
                "version": hold["until"] if hold else 0,
            }


def _served(row: dict[str, Any], alive: Iterable[tuple[set[str], int]]) -> dict[str, Any]:
    """Return the *row* of a bulkhead with its workers, and how many jobs they run."""
    running = [active for queues, active in alive if not queues.isdisjoint(row["queues"])]
    return row | {"consumers": len(running), "in_flight": sum(running)}


def _by(order: Any) -> dict[str, str]:  # noqa: ANN401 - an order or an entry of the audit
    return {"actor": order.actor, "reason": order.reason}
