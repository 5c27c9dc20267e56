"""One app whose store may hold anything, and all that reads there."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery import Celery

from resilience import BreakerPolicy, Dependency, Feature, Level, Resilience, Settings
from resilience.breaker import Breaker
from resilience.consistency.records import LIFE_US, Records
from resilience.consistency.session import ConsistentSession
from resilience.consistency.token import Token
from resilience.errors import ResilienceError
from resilience.events import Event
from resilience.flags.document import TrialPlan
from resilience.flags.reports import Report
from resilience.flags.trial import judge
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.queues import unserved
from resilience.monitor.readings import Readings
from resilience.monitor.status import _from_store
from resilience.store.election import Election
from resilience.store.flags import FlagStore
from resilience.store.ledgers import Ledgers
from resilience.store.slots import SlotStore
from resilience.store.writes import WriteStore
from resilience.tasks.positions import token_of_parts
from resilience.worker.shedding import lead

WHO: Any = {"actor": "ann", "reason": "test"}
PLAN = TrialPlan(id="plan", share=0.5, began=0.0, until=0.0, **WHO)
POLICY = BreakerPolicy(
    minimum_calls=2, consecutive_failures=2, open_seconds=0.01, open_seconds_max=0.01
)
SESSION = "ann"


def adopted(url: str, namespace: str, listener: Callable[[Event], None]) -> Resilience:
    """Return an app whose store is at *url*; `mail` may be broken by garbage, `shop` is not."""
    app: Celery[Any] = Celery("garbage", broker="memory://", set_as_current=False)
    return Resilience(
        app,
        dependencies=[
            Dependency("mail", breaker=POLICY, slots=1),
            Dependency("shop", breaker=POLICY, slots=1),
        ],
        features=[Feature("extras", level=Level.REDUCED), Feature("other", level=Level.REDUCED)],
        settings=Settings(store_url=url, namespace=namespace, store_timeout_seconds=2.0),
        listeners=[listener, PrometheusListener(objectives=[Objective(full=0.99)])],
    )


class Everything:
    """All readers of one namespace, each called with names that garbage stands under."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.app = adopted(url, uuid4().hex, self.events.append)
        self.store = self.app.store
        self.writes = WriteStore(self.store, "source", life_us=LIFE_US)

    def breaker(self, name: str = "mail") -> Breaker:
        """Return a breaker of the app."""
        found = self.app.breaker(name)
        assert isinstance(found, Breaker)
        return found

    def read_all(self) -> None:
        """Call every reader; a refusal or an answer that is none is fine, anything else is not."""
        for read in self.readers():
            with suppress(ResilienceError):
                read()

    def readers(self) -> Iterator[Callable[[], object]]:
        """Return what reads the store."""
        app, store, breaker = self.app, self.store, self.breaker()
        slots, flags = SlotStore(store), FlagStore(store)
        election = Election(store)
        yield app.pulse.refresh
        yield lambda: breaker.call(int)
        yield self._fail
        yield lambda: breaker.state
        yield lambda: breaker.force_open(seconds=0.001, **WHO)
        yield lambda: breaker.reset(**WHO)
        yield app.holds.look
        yield app.holds.all
        yield lambda: app.holds.hold("mail", seconds=0.001, seen=0, **WHO)
        yield lambda: app.holds.release("mail", **WHO)
        yield lambda: app.flags.decide("extras")
        yield lambda: app.flags.order("extras", "auto", **WHO)
        yield lambda: app.faults.active("mail")
        yield lambda: slots.take("mail", "owner", 1)
        yield lambda: slots.renew([("mail", "owner", 1)])
        yield lambda: slots.doze("mail", "owner", 0.001)
        yield lambda: slots.leave("mail", "owner", 1)
        yield lambda: app.releases.ask("mail", 5, share=0.1, closed=True)
        yield lambda: app.releases.ask("mail", 5, share=None, closed=False)
        yield lambda: app.spares.spare("job")
        yield self._recall
        yield lambda: app.chords.expect("group", 2)
        yield lambda: token_of_parts(app, app.chords.collect("group")[1])
        yield lambda: judge("extras", PLAN, flags.counted("plan"), 1.0, over=True)
        yield lambda: flags.count("plan", {"shed:calls": 1.0})
        yield self._compare
        report = Report(host="here", load=0.0).model_dump_json()
        yield lambda: lead(app, Report.all_of(election.report(report).reports))
        yield self._learn
        yield lambda: app.positions.exchange("source")
        yield lambda: app.positions.merge("record", Token(), 1.0)
        yield lambda: app.positions.load("record")
        yield app.positions.sources
        yield lambda: unserved(app, {"celery": 0, "mail": 1})
        yield lambda: list(Readings(app)._from_store())  # noqa: SLF001 - what a scrape asks
        yield lambda: _from_store(app)

    def _fail(self) -> None:
        with suppress(ConnectionError):
            self.breaker().call(_refuse)

    def _recall(self) -> None:
        key = self.app.answers.key("answer")
        # What cannot be read is one of these to a chain, which then asks its next step.
        with suppress(ValueError):
            self.app.answers.recall(key)
        with suppress(ValueError):
            asyncio.run(self.app.answers.recall_async(key))

    def _compare(self) -> None:
        ledgers = Ledgers(self.store)
        common: Any = {"ledger": "id", "host": "here", "place": "x"}
        ledgers.compare(["celery"], **common, mode="look")
        ledgers.compare(["celery"], **common, mode="join")

    def _learn(self) -> None:
        session = ConsistentSession(SESSION)
        records = Records("source", self.app.pulse._clock, shared=True)  # noqa: SLF001 - any
        records.learn(session, 0, self.writes.run(SESSION, 0))
        records.look(session, "key")
        reply = self.writes.run(SESSION, 0, b"key")
        records.apply(session, "key", 0, reply)
        records.apply(session, "key", 0, self.writes.run(SESSION, 0, b"key", *reply[4:]))


def _refuse() -> None:
    msg = "refused"
    raise ConnectionError(msg)


def samples(everything: Everything) -> Mapping[str, tuple[str, list[str]]]:
    """Return by kind of key one key that the readers use, and fields or members there."""
    app, process = everything.app, everything.app.pulse._process  # noqa: SLF001 - its own key
    writes = everything.writes.key(SESSION)
    calls = ["shed:calls", "shed:seconds", "shed:failures", "control:calls", "control:failures"]
    series = [
        '["answers","t","mail","FULL"]',
        '["minutes_below_full","mail"]',
        '["drills","t","mail","FULL"]',
        '["events","JobDied","mail"]',
    ]
    named = {
        "circuits": ("circuits", ["mail"]),
        "told": ("told", []),
        "flags": ("flags", []),
        "windows": ("windows", ["mail"]),
        "counted:*": (f"counted:{process}", []),
        "totals": ("totals", ["born", *series]),
        "answers": ("answers", series),
        "history": ("history", ["60", "999999999999999", "9" * 30]),
        "exemplars": ("exemplars", series),
        "probes:*": ("probes:mail", ["g", "ok", "failed", "l:owner"]),
        "history:*": ("history:mail", []),
        "slots:*:held": ("slots:mail:held", ["owner", "other"]),
        "slots:*:line": ("slots:mail:line", ["owner", "other"]),
        "slots:*:alive": ("slots:mail:alive", ["owner", "other"]),
        "slots:*:wake:*": ("slots:mail:wake:owner", []),
        "flow:*": ("flow:mail", ["open", "closed", "c:1", "r:9999999999", "a:9999999999"]),
        "holds": ("holds", ["mail", "celery"]),
        "trial:*": ("trial:plan", calls),
        "chords:*": ("chords:group", ["members", "m:one"]),
        "ledgers": ("ledgers", ["celery"]),
        "reports": ("reports", ["worker"]),
        "leader": ("leader", []),
        "answer:*": ("answer:answer", []),
        "positions:samples:*": ("positions:samples:source", []),
        "positions:sources": ("positions:sources", []),
        "positions:orders": ("positions:orders", ["source"]),
        "positions:record:*": ("positions:record:record", []),
        "spared:*": ("spared:job", []),
        "unserved": ("unserved", ["celery"]),
    }
    found = {kind: (app.store.key(key), fields) for kind, (key, fields) in named.items()}
    return {**found, "writes:*": (writes, ["n", "lost", "bytes", "k:key"])}
