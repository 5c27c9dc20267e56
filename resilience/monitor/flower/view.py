"""What the page shows, as plain JSON values, looked up only while somebody looks at it."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from flower.app import Flower  # type: ignore[import-untyped]

from resilience.clock import SystemClock
from resilience.errors import text_of
from resilience.flags.document import BROWNOUT
from resilience.ledger import Which
from resilience.levels import Level
from resilience.monitor.circuits import histories
from resilience.monitor.flower.state import short
from resilience.monitor.flower.timeline import timeline
from resilience.monitor.objective import minutes_below_full
from resilience.monitor.queues import Workers
from resilience.monitor.rows import cause_rows
from resilience.monitor.status import answer_of, look
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger

logger = get_logger(__name__)

FRESH_SECONDS = 0.9
"""However many people look, the store, the broker and the ledger are asked about once a second."""
PATIENCE_SECONDS = 0.2
"""Whoever has waited so long for a look gets the one before, with its age."""
FIRST_SECONDS = 10.0
QUIET_SECONDS = 30.0
"""Workers send heartbeats every two seconds."""
REST = 20
"""What is slow is asked again only after so many times as long as it took."""
SHOWN = 100
KEPT = ("causes", "orders", "changes", "below_full")
"""What stays as it was while its source is away."""


class View:
    """What the page shows.

    The state of Flower is read in its event loop only; all else is asked in another thread, by one
    look at a time.
    """

    def __init__(self, flower: Flower, adopted: Resilience, command: str) -> None:
        """Look at nothing yet.

        Args:
            flower: Whose page it is; its state is a `DegradationState`.
            adopted: What the app declared.
            command: Begins each command that the page suggests: `celery -A shop`.
        """
        self._flower = flower
        self._adopted = adopted
        self._command = command
        self._looking: asyncio.Task[None] | None = None
        self._began = float("-inf")
        self._last: dict[str, Any] = {"unknown": {"page": "its first look is not over"}}
        self._last |= {"queues": {}, "oldest": {}, "holds": [], "audited": []}
        self._rests: dict[str, float] = {}
        self._kept: dict[str, list[Any]] = {name: [] for name in KEPT}

    async def read(self) -> dict[str, Any]:
        """Return what is known: a look that is new, or the last one if that takes longer."""
        now = SystemClock.monotonic()
        is_stale = now - self._began >= FRESH_SECONDS
        if self._looking is None or (self._looking.done() and is_stale):
            self._began = now
            self._looking = asyncio.create_task(self._renew())
        seconds = PATIENCE_SECONDS if "at" in self._last else FIRST_SECONDS
        await asyncio.wait({self._looking}, timeout=seconds)
        return self._last | self._heard()

    def outdate(self) -> None:
        """Look again when somebody asks: an order has changed what there is."""
        self._began = float("-inf")
        self._rests = {}

    async def note_level(self) -> None:
        """Keep the level for the chart."""
        shown = await self.read()
        name = None if "store" in shown["unknown"] else shown.get("level")
        level = int(Level[name]) if name else None
        self._flower.events.state.levels.append((round(SystemClock().now()), level))

    async def _renew(self) -> None:
        """Look; workers are asked what they consume only if Flower has not heard of any."""
        workers = Counter(chain(*(queues for queues, _ in self._alive()))) or None
        loop = asyncio.get_running_loop()
        try:
            self._last = await loop.run_in_executor(self._flower.executor, self._look, workers)
        except Exception as error:
            logger.exception("the Degradation page could not look")
            self._last = self._last | {"unknown": {"page": text_of(error) or repr(error)}}

    def _heard(self) -> dict[str, Any]:
        """Return what Flower itself knows, which asks nobody."""
        state, now = self._flower.events.state, SystemClock().now()
        unknown = dict(self._last["unknown"])
        if state.heard is None or now - state.heard > QUIET_SECONDS:
            since = "since it started" if state.heard is None else f"for {now - state.heard:.0f} s"
            unknown["events"] = (
                f"Flower has heard of no worker {since}: do workers run, and can Flower reach the "
                "broker? Meanwhile answers, incidents and workers are missing here"
            )
        return {
            "now": now,
            "unknown": unknown,
            "bulkheads": list(self._bulkheads()),
            "answers": list(reversed(state.answers))[:SHOWN],
            "levels": list(zip(*state.levels, strict=True)) or [[], []],
            "timeline": timeline(state.incidents, self._last["audited"])[:SHOWN],
        }

    def _alive(self) -> Iterable[tuple[set[str], int]]:
        """Yield queues and running jobs of each worker that has sent a heartbeat lately."""
        for name, worker in self._flower.events.state.workers.items():
            queues = self._flower.workers.get(name, {}).get("active_queues")
            if worker.alive and isinstance(queues, list):
                yield {str(one.get("name")) for one in queues}, worker.active or 0

    def _bulkheads(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each dependency, and for the other queues."""
        report, alive = self._last, list(self._alive())
        owned = {name: owner.queues for name, owner in self._adopted.dependencies.items()}
        others = set(report["queues"]).difference(*owned.values())
        for name, queues in {**owned, **{queue: (queue,) for queue in sorted(others)}}.items():
            holds = [hold for hold in report["holds"] if hold["name"] in (name, *queues)]
            depths = {queue: report["queues"].get(queue) for queue in queues}
            sent = [report["oldest"][queue] for queue in queues if queue in report["oldest"]]
            running = [active for taken, active in alive if not taken.isdisjoint(queues)]
            yield {
                "name": name,
                "depth": sum(depths.values()) if report["queues"] else None,
                "queues": depths,
                "oldest": max(0.0, report["at"] - min(sent)) if sent else None,
                "held": next((hold for hold in holds if hold["name"] == name), None),
                "held_queues": [hold for hold in holds if hold["name"] != name],
                "version": max((hold["until"] for hold in holds), default=0),
                "consumers": len(running),
                "in_flight": sum(running),
            }

    def _look(self, workers: Workers) -> dict[str, Any]:
        report = look(self._adopted, self._command, workers=workers)
        report["began"], unknown = SystemClock().now(), report["unknown"]
        if "store" not in unknown:
            document = self._adopted.flags.document
            for row in report["flags"]:
                trial = document.trials.get(row["feature"])
                row |= {"version": row["order_version"], "trial": trial and trial.until}
            order = document.orders.get(BROWNOUT)
            now = order.said if order and order.until > report["at"] else "off"
            report["brownout"] = {"version": order.version if order else 0, "order": now}
        for source, ask in (("ledger", self._from_ledger), ("store", self._from_store)):
            began = SystemClock.monotonic()
            if source not in unknown and began >= self._rests.get(source, began):
                self._kept |= answer_of(source, ask, unknown)
                self._rests[source] = began + REST * (SystemClock.monotonic() - began)
        audited = self._kept["orders"] + self._kept["changes"]
        return report | self._kept | {"audited": audited}

    def _from_ledger(self) -> dict[str, list[Any]]:
        """Return the causes of dead letters, and who ordered what."""
        ledger = self._adopted.ledger
        causes = cause_rows(ledger.letters, Which(), limit=SHOWN)
        flags, names = ledger.orders.recent(limit=SHOWN), ("at", "actor", "reason", "task")
        orders: list[Any] = [(f"flag {one.said}", name, one) for name, one in flags]
        orders += ((one.action, one.job, one) for one in ledger.letters.audit(limit=SHOWN))
        return {
            "causes": [{name: short(value) for name, value in row.items()} for row in causes],
            "orders": [
                {"what": what, "name": name} | {field: getattr(one, field, None) for field in names}
                for what, name, one in orders
            ],
        }

    def _from_store(self) -> dict[str, list[Any]]:
        """Return the last changes of all circuits, and for how long answers were not full."""
        changes = [
            {"what": change.event, "name": name, **change.model_dump(exclude_none=True)}
            for name, changes in histories(self._adopted, self._adopted.dependencies).items()
            for change in changes
        ]
        return {"changes": changes, "below_full": [*minutes_below_full(self._adopted).items()]}
