"""The store or the ledger does what it is asked, and the answer is lost: everything counts once."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from typing import Any
from uuid import uuid4

import pytest

from resilience.bulkhead.holds import Holds
from resilience.consistency.position import Position
from resilience.consistency.shared import Sample, SharedPositions
from resilience.consistency.token import Token
from resilience.errors import StoreUnavailableError
from resilience.events import Event, QueueHeld
from resilience.store import Answers, FanIn, Slot, Store
from resilience.store.election import Election
from resilience.store.flags import FlagStore
from resilience.store.fleet import (
    Batch,
    EndProbe,
    Evidence,
    Exchange,
    Kept,
    StoreFleet,
    Swap,
    TakeProbe,
)
from resilience.store.ledgers import Ledgers
from resilience.store.release import Releases
from resilience.store.slots import SlotStore
from resilience.store.writes import WriteStore
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.losing_proxy import LosingProxy

SECONDS = 120.0
GOOD = "+1"
READS = {"answer", "repair"}
"""Scripts that write nothing, or delete what they are shown: a repetition finds nothing."""


class Stage:
    """A namespace, and a way to the store that loses the answer of one step, or none."""

    def __init__(self, url: str, proxy: LosingProxy | None) -> None:
        """Connect; *proxy* loses answers on the way to *url*."""
        self._proxy = proxy
        self.store = Store(url, namespace=uuid4().hex, timeout_seconds=SECONDS)
        self.fan_in = FanIn(self.store, Answers(self.store))
        self.fleet = StoreFleet(self.store)
        self.slots = SlotStore(self.store)

    def step(self, call: Callable[[], object], *, after: int = 0, again: bool = True) -> None:
        """Make *call*; if its answer was lost, make it again, unless the library does not.

        The lost answer is that of the exchange which comes *after* so many others of the call.
        """
        if self._proxy is None:
            call()
            return
        lost = self._proxy.lost
        self._proxy.lose(after=after)
        with suppress(StoreUnavailableError):
            call()
        assert self._proxy.lost == lost + 1
        self.store._found()  # noqa: SLF001 - as after a second
        if again:
            call()

    def ask(self, command: str, *key: str) -> Any:  # noqa: ANN401 - by command
        """Return the server's answer to *command* about a key of the namespace."""
        return self.store.run(lambda client: client.execute_command(command, self.store.key(*key)))  # type: ignore[no-untyped-call]

    def opened(self, *parts: str, **options: Any) -> str:  # noqa: ANN401 - as FanIn's
        """Return the id of a fan-out of *parts*."""
        fan = uuid4().hex
        spec = [(part, False) for part in parts]
        self.fan_in.open(fan, spec, **{"budget": 30.0, "memories": {}, **options})
        return fan

    def seen(self, fan: str) -> tuple[Any, ...]:
        """Return what became of a fan-out: parts, end, late reports, news, callbacks to publish."""
        record = self.fan_in.collect(fan)
        assert record is not None
        news = self.ask("XLEN", "fan", fan, "news")
        due = self.ask("ZCARD", "fan", "due", "")
        return sorted(record.ended), record.final, record.late, news, due


def pulse(stage: Stage) -> object:
    """Evidence counts once in the window of the fleet; it is not sent again."""
    seen = Evidence(name="users", generation=0, window_seconds=60, ok=2, failed=1)
    nothing = Evidence(name="users", generation=0, window_seconds=60)
    stage.step(
        lambda: stage.fleet.ask(Exchange(process="p", evidence=[seen])),
        again=False,
    )
    window = stage.fleet.ask(Exchange(process="q", evidence=[nothing])).windows["users"]
    return window.calls, window.failed


def counts(stage: Stage) -> object:
    """A batch is added once, however often it is sent."""
    text = json.dumps({"batch": 1, "counts": {'["x"]': 5}, "exemplars": {}})
    question = Exchange(process="p", evidence=[], batch=Batch(number=1, text=text))
    stage.step(lambda: stage.fleet.ask(question))
    return stage.ask("HGETALL", "totals")[b'["x"]']


def swap(stage: Stage) -> object:
    """A circuit is replaced once, with one line of history."""
    change = Swap(
        name="users", expected=None, new=Kept(generation=1, until_ms=0, body="x"), change="{}"
    )
    stage.step(lambda: stage.fleet.ask(change))
    return stage.ask("HGETALL", "circuits"), stage.ask("LLEN", "history", "users")


def probe(stage: Stage) -> object:
    """A permit is one permit, and its probe counts once."""
    stage.fleet.ask(Swap(name="users", expected=None, new=Kept(generation=1, until_ms=0, body="x")))
    take = TakeProbe(name="users", generation=1, owner="a", most=9, seconds=60.0)
    stage.step(lambda: stage.fleet.ask(take))
    held = stage.ask("HLEN", "probes", "users")
    end = EndProbe(name="users", generation=1, owner="a", result="ok")
    stage.step(lambda: stage.fleet.ask(end))
    return held, stage.ask("HGETALL", "probes", "users")


def slot_take(stage: Stage) -> object:
    """An owner holds one slot."""
    stage.step(lambda: stage.slots.take("users", "a", 2))
    return stage.ask("ZCARD", "slots", "users", "held")


def slot_leave(stage: Stage) -> object:
    """A slot is given back once, and wakes the next in line once."""
    stage.slots.take("users", "a", 1)
    stage.slots.take("users", "b", 1)
    stage.step(lambda: stage.slots.leave("users", "a", 1))
    woken = stage.ask("LLEN", "slots", "users", "wake", "b")
    return stage.ask("ZCARD", "slots", "users", "held"), woken


def slot_renew(stage: Stage) -> object:
    """A renewed lease is one lease."""
    stage.slots.take("users", "a", 2)
    stage.step(lambda: stage.slots.renew([("users", "a", 2)]))
    return stage.ask("ZCARD", "slots", "users", "held")


def release(stage: Stage) -> object:
    """A job that a worker took counts once."""
    releases = Releases(stage.store)
    releases.count("mail", again=True)
    stage.step(releases.tell)
    flow = stage.ask("HGETALL", "flow", "mail")
    return sorted((name[:1], amount) for name, amount in flow.items())


def hold(stage: Stage) -> object:
    """An order is in force once, and announced once."""
    heard: list[Event] = []
    holds = Holds(stage.store, time=lambda: 1.0, listeners=[heard.append])
    stage.step(lambda: holds.hold("mail", seconds=60.0, actor="ann", reason="x"), after=1)
    return dict(holds.all()), [type(event) for event in heard] == [QueueHeld]


def flags(stage: Stage) -> object:
    """A state of the features is written once; measurements of a trial are not sent again."""
    store = FlagStore(stage.store)
    stage.step(lambda: store.swap(None, "1|{}"))
    stage.step(lambda: store.count("t", {"n": 2.0}), again=False)
    return store.read(), store.counted("t")


def fanin(stage: Stage) -> object:
    """A part counts once, in time or late, and the callback stays due until it is settled."""
    fan = uuid4().hex
    spec = [("a", False), ("b", False)]
    stage.step(lambda: stage.fan_in.open(fan, spec, budget=30.0, memories={}, callback="{}"))
    seen = [stage.seen(fan)]
    for part in ("a", "b"):
        slot = Slot(fan=fan, part=part)
        stage.step(lambda slot=slot: stage.fan_in.report(slot, GOOD, full=True))  # type: ignore[misc]
        seen.append(stage.seen(fan))
    stage.step(lambda: stage.fan_in.settle(fan))
    seen.append(stage.seen(fan))
    fan = stage.opened("a")
    stage.step(lambda: stage.fan_in.finish(fan, "deadline"))
    seen.append(stage.seen(fan))
    stage.step(lambda: stage.fan_in.report(Slot(fan=fan, part="a"), GOOD, full=True))
    return [*seen, stage.seen(fan)]


def sweep(stage: Stage) -> object:
    """A callback whose taker does not know of it stays due; nobody else gets it meanwhile."""
    fan = stage.opened("a", callback="{}")
    stage.fan_in.finish(fan, "deadline", lease_seconds=0.0)
    stage.step(stage.fan_in.take_due)
    return stage.fan_in.take_due()[0], stage.ask("ZCARD", "fan", "due", "")


def election(stage: Stage) -> object:
    """A worker reports once, and knows that it leads."""
    worker, other = Election(stage.store), Election(stage.store)
    stage.step(lambda: worker.report("{}"))
    standing = worker.report("{}")
    return standing.is_leader, standing.reports, other.report("{}").is_leader


def ledgers(stage: Stage) -> object:
    """A ledger that joined is the ledger of its queues, and no conflict with itself."""
    mine = {"ledger": "a", "host": "", "place": "here"}
    store = Ledgers(stage.store)
    stage.step(lambda: store.compare(["q"], mode="join", **mine))
    return store.compare(["q"], mode="look", **mine), stage.ask("HLEN", "ledgers")


def positions(stage: Stage) -> object:
    """A sample is kept once."""
    shared = SharedPositions(stage.store)
    sample = Sample(shared.exchange("main").now - 1, Position.at("7/1", 1))
    stage.step(lambda: shared.exchange("main", sample=sample))
    return len(shared.exchange("main").samples)


def positions_record(stage: Stage) -> object:
    """A position that is merged twice is merged."""
    shared = SharedPositions(stage.store)
    token = Token()
    stage.step(lambda: shared.merge("k", token, 60.0))
    return shared.load("k")


def writes(stage: Stage) -> object:
    """A write is noted under one key, as open."""
    store = WriteStore(stage.store, "main", life_us=60_000_000)
    stage.step(lambda: store.run("ann", 0, b"key"))
    fields = store.run("ann", 0)[3]
    return len(fields), [text.partition(b"|")[2] for text in fields if b"|" in text]


CASES = (
    pulse, counts, swap, probe, slot_take, slot_leave, slot_renew, release, hold, flags, fanin,
    sweep, election, ledgers, positions, positions_record, writes,
)  # fmt: skip


@pytest.fixture(scope="module")
def proxy(server: ValkeyProcess) -> Iterator[LosingProxy]:
    """A way to the server that loses answers."""
    proxy = LosingProxy(server.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_step_whose_answer_was_lost_counts_once(
    server: ValkeyProcess, proxy: LosingProxy, case: Callable[[Stage], object]
) -> None:
    """The store holds the same, whether the answer came or the step was made again."""
    healthy = Stage(server.url, None)
    lossy = Stage(f"redis://127.0.0.1:{proxy.port}/0", proxy)
    try:
        expected = case(healthy)  # the server knows the scripts from now on
        lossy.store.run(lambda client: client.ping())
        assert case(lossy) == expected
    finally:
        healthy.store.client.close()
        lossy.store.client.close()


def test_every_script_of_the_store_is_among_the_cases() -> None:
    """A new script needs a case here, or a word that it only reads."""
    scripts = {one.name for one in files("resilience.store").iterdir()}
    names = {name.removesuffix(".lua") for name in scripts if name.endswith(".lua")}
    assert names == {case.__name__ for case in CASES} | READS
