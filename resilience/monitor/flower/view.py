"""What the page shows, as plain JSON values, looked up only while somebody looks at it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from resilience.breaker import Breaker
from resilience.clock import SystemClock
from resilience.errors import text_of
from resilience.flags.document import BROWNOUT
from resilience.levels import Level
from resilience.monitor.flower.state import DegradationState
from resilience.monitor.flower.timeline import timeline
from resilience.monitor.status import AWAY, look
from resilience.tasks.resilience import Resilience

logger = logging.getLogger(__name__)

FRESH_SECONDS = 0.9
"""However many people look, the store, the broker and the ledger are asked about once a second."""
PATIENCE_SECONDS = 1.5
"""Whoever asks meanwhile gets what was last known, with its age."""
FIRST_SECONDS = 10.0
LEVEL_SECONDS = 5.0
QUIET_SECONDS = 30.0
"""Workers send heartbeats every two seconds."""
CAUSES = 50
SHOWN_INCIDENTS = 100


class View:
    """What the page shows; made by one thread at a time, on the state of Flower's event loop."""

    def __init__(
        self,
        adopted: Resilience,
        state: DegradationState,
        workers: Mapping[str, Mapping[str, Any]],
        run: Callable[..., Any],
    ) -> None:
        """Look at nothing yet.

        Args:
            adopted: What the app declared.
            state: What Flower has heard.
            workers: What workers have answered to Flower, by name.
            run: Runs a function in another thread; returns a future.
        """
        self._adopted = adopted
        self._state = state
        self._workers = workers
        self._run = run
        self._looking: asyncio.Future[dict[str, Any]] | None = None
        self._began = float("-inf")
        self._last: dict[str, Any] = {}
        self._slow_until: dict[str, float] = {}
        self._kept: dict[str, Any] = {}

    async def read(self) -> dict[str, Any]:
        """Return what is known, at most a second old unless a source does not answer in time."""
        now = SystemClock.monotonic()
        if self._looking is None and now - self._began >= FRESH_SECONDS:
            self._began = now
            self._looking = asyncio.ensure_future(self._run(self._look))
            self._looking.add_done_callback(self._take)
        if self._looking is not None:
            seconds = PATIENCE_SECONDS if self._last else FIRST_SECONDS
            await asyncio.wait({self._looking}, timeout=seconds)
        return self._last | self._heard()

    async def note_level(self) -> None:
        """Keep the level for the chart; called every `LEVEL_SECONDS`."""
        found = await self.read()
        name = None if "store" in found["unknown"] else found.get("level")
        level = None if name is None else int(Level[name])
        self._state.levels.append((round(SystemClock().now()), level))

    def _take(self, looked: "asyncio.Future[dict[str, Any]]") -> None:
        self._looking = None
        try:
            self._last = looked.result()
        except Exception as error:
            logger.exception("the page could not look")
            self._last = self._last | {"unknown": {"page": text_of(error) or repr(error)}}

    def _heard(self) -> dict[str, Any]:
        state, now = self._state, SystemClock().now()
        unknown = dict(self._last.get("unknown", {"page": "the first look is not over yet"}))
        if state.heard is None or now - state.heard > QUIET_SECONDS:
            since = "since it started" if state.heard is None else f"for {now - state.heard:.0f} s"
            unknown["events"] = (
                f"Flower has heard of no worker {since}: do workers run, and can Flower reach the "
                "broker? Answers and incidents are missing here meanwhile"
            )
        alive = self._alive()
        return {
            "now": now,
            "bulkheads": [_served(row, alive) for row in self._last.get("bulkheads", ())],
            "unknown": unknown,
            "answers": list(reversed(state.answers)),
            "levels": list(zip(*state.levels, strict=True)) or [[], []],
            "timeline": timeline(state.incidents, self._last.get("audited", ()))[:SHOWN_INCIDENTS],
        }

    def _alive(self) -> list[tuple[set[str], int]]:
        """Return queues and running jobs of each worker that has sent a heartbeat lately."""
        found = []
        for name, worker in list(self._state.workers.items()):
            queues = self._workers.get(name, {}).get("active_queues")
            if worker.alive and isinstance(queues, list):
                found.append(({str(one.get("name")) for one in queues}, worker.active or 0))
        return found

    def _look(self) -> dict[str, Any]:
        adopted = self._adopted
        found = look(adopted, ask_workers=False)
        known = "store" not in found["unknown"]
        if known:
            self._add_versions(found)
        found["bulkheads"] = [*self._bulkheads(found)]
        for name, ask in {
            "causes": lambda: [asdict(one) for one in adopted.ledger.overview.causes(limit=CAUSES)],
            "due": lambda: [asdict(one) for one in adopted.ledger.overview.due()],
            "audited": self._audited,
        }.items():
            found[name] = self._from_ledger(name, ask, found["unknown"])
        return found | {"began": SystemClock().now()}

    def _from_ledger(self, name: str, ask: Callable[[], Any], unknown: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
        """Ask the ledger; less often the longer its answer takes, and not while it is away."""
        began = SystemClock.monotonic()
        if "ledger" not in unknown and began >= self._slow_until.get(name, 0.0):
            try:
                self._kept[name] = ask()
            except AWAY as error:
                unknown["ledger"] = text_of(error) or repr(error)
            took = SystemClock.monotonic() - began
            self._slow_until[name] = began + (20 * took if took > 0.05 else 0.0)
        return self._kept.get(name, [])

    def _audited(self) -> list[dict[str, Any]]:
        ledger = self._adopted.ledger
        orders = ledger.orders.recent(limit=SHOWN_INCIDENTS)
        return [asdict(one) for one in ledger.letters.audit(limit=SHOWN_INCIDENTS)] + [
            {"action": f"flag {order.said}", "job": name, **order.model_dump(exclude={"state"})}
            for name, order in orders
        ]

    def _add_versions(self, found: Mapping[str, Any]) -> None:
        """Add to each row the version that an order about it must name."""
        adopted, document = self._adopted, self._adopted.flags.document
        for row in found["breakers"]:
            breaker = adopted.breaker(row["dependency"])
            if isinstance(breaker, Breaker):
                row["version"] = breaker.circuit.generation
        for row in found["flags"]:
            trial = document.trials.get(row["feature"])
            row |= {"version": row["order_version"], "trial": trial and trial.until}
        order = document.orders.get(BROWNOUT)
        found["brownout"] = {  # type: ignore[index] # a dict, read elsewhere only
            "version": order.version if order else 0,
            "order": order.said if order and order.until > found["at"] else "off",
        }

    def _bulkheads(self, found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """Yield a row for each dependency, and for the other queues."""
        holds = {one["name"]: one for one in found["holds"]}
        owned = {name: one.queues for name, one in self._adopted.dependencies.items()}
        others = set(found["queues"]) - {queue for queues in owned.values() for queue in queues}
        for name, queues in {**owned, **{queue: (queue,) for queue in sorted(others)}}.items():
            hold = holds.get(name)
            waits = [wait for one in queues if (wait := found["waits"].get(one)) is not None]
            depths = {one: found["queues"].get(one) for one in queues}
            known = [depth for depth in depths.values() if depth is not None]
            yield {
                "name": name,
                "depth": sum(known) if known else None,
                "queues": depths,
                "oldest": max(waits, default=None),
                "held": hold,
                "held_queues": [one for one in queues if one in holds and one != name],
                "version": hold["until"] if hold else 0,
            }


def _served(row: dict[str, Any], alive: Iterable[tuple[set[str], int]]) -> dict[str, Any]:
    """Return the *row* of a bulkhead with its workers, and how many jobs they run."""
    running = [active for queues, active in alive if not queues.isdisjoint(row["queues"])]
    return row | {"consumers": len(running), "in_flight": sum(running)}
