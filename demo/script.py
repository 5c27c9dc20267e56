"""The scripted outage: what breaks when, and the traffic that meets it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Self

import httpx
from pydantic import TypeAdapter

from demo.layout import DWELL_SECONDS
from demo.load import LoadMeter, Reading
from demo.runner import RunningShop
from demo.shoppers import OrderRead, Shoppers
from demo.traffic import (
    CONTROL,
    CONTROL_RATE,
    GIVE_UP_SECONDS,
    LOW_RATES,
    RATES,
    Sample,
    Traffic,
)

TICK_SECONDS: Final = 0.5
MAIL_SECONDS: Final = 20.0
HANG: Final = {"mode": "hang"}
FAIL: Final = {"mode": "fail"}
SLOW: Final = {"mode": "slow", "latency_seconds": 2.5}
LOADED: Final = {"mode": "slow", "latency_seconds": 0.3}
"""As long as ranking takes while more than usual is asked of it; no call fails for that."""
BREAKABLE: Final = ("recommendations", "payments", "search", "replication", "primary")
RUSH: Final = {"search": 6}
"""More searches a second than usual. Each makes two jobs of 0.3 s, for two workers."""
SHOPPERS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the script.

    Attributes:
        name: For the progress display.
        part: Which column of the table it belongs to: before, during or after; `rush`, `calm`,
            `stalled`, `cut` or `healed`: of no column; empty: it is not judged.
        seconds: How long it takes.
        rush: Requests per second by endpoint, besides the usual ones.
        shoppers: How many users a second buy something and look at it, besides.
        faults: What the upstream services are told when it begins, those not named to be well.
    """

    name: str
    part: str
    seconds: float
    rush: Mapping[str, int] = field(default_factory=dict)
    shoppers: int = 0
    faults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Phases, and the traffic and the shop that they are for.

    Attributes:
        phases: In order.
        rates: Requests per second by endpoint, all the while.
        dwell_seconds: How long the shop waits between two features that it sheds or restores.
    """

    phases: Sequence[Phase]
    rates: Mapping[str, int]
    dwell_seconds: float


PHASES: Final[Sequence[Phase]] = (
    Phase(name="warming up", part="", seconds=12),
    Phase(name="before: all is well", part="before", seconds=35),
    Phase(
        name="during: recommendations fail",
        part="during",
        seconds=6,
        faults={"recommendations": FAIL},
    ),
    Phase(
        name="during: recommendations hang",
        part="during",
        seconds=45,
        faults={"recommendations": HANG},
    ),
    Phase(
        name="during: payments are slow, too",
        part="during",
        seconds=10,
        faults={"recommendations": HANG, "payments": SLOW},
    ),
    Phase(name="after: both are back", part="after", seconds=15),
    Phase(
        name="rush: twice the searches",
        part="rush",
        seconds=12,
        rush=RUSH,
        faults={"search": LOADED},
    ),
    Phase(name="calm: the rush is over", part="calm", seconds=16),
    Phase(
        name="stalled: the replica hears nothing",
        part="stalled",
        seconds=7,
        shoppers=SHOPPERS,
        faults={"replication": HANG},
    ),
    Phase(
        name="cut: the primary is killed, too",
        part="cut",
        seconds=8,
        shoppers=SHOPPERS,
        faults={"replication": HANG, "primary": FAIL},
    ),
    Phase(name="healed: both are back", part="healed", seconds=8, shoppers=SHOPPERS),
)
QUICK_SECONDS: Final = (2, 3, 2, 3, 3, 6, 4, 6, 4, 4, 3)
"""Each phase is longer than what is judged in it may take: recovery 5 s, the lag that is not marked
3 s. The outage ends before a circuit has opened a third time, for longer than recovery may take."""
FULL_SCRIPT: Final = Script(phases=PHASES, rates=RATES, dwell_seconds=DWELL_SECONDS)
QUICK_SCRIPT: Final = Script(
    phases=[
        replace(one, seconds=seconds) for one, seconds in zip(PHASES, QUICK_SECONDS, strict=True)
    ],
    rates=LOW_RATES,
    dwell_seconds=1.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A phase as it was, on the clock of `perf_counter`.

    Attributes:
        phase: Which one.
        told: When the upstream services were told its faults.
        began: When all of them had heard.
        ended: When the next phase's were told, or the traffic ended.
    """

    phase: Phase
    told: float
    began: float
    ended: float

    def spans(self, sample: Sample) -> bool:
        """Tell whether *sample* was sent and answered while exactly these faults were in force."""
        return self.began <= sample.sent and sample.sent + sample.seconds <= self.ended

    def touches(self, sample: Sample) -> bool:
        """Tell whether *sample* was under way at any time of it."""
        return self.told <= sample.sent + sample.seconds and sample.sent <= self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """All that happened.

    Attributes:
        stretches: The phases, in order.
        samples: What the users saw.
        controls: Requests of the control, which calls no dependency.
        readings: What other programs used of the processors, in order and without gaps.
        mails: Message-IDs of all mails that were sent.
        reads: What those who bought something, and others, saw of it.
    """

    stretches: Sequence[Stretch]
    samples: Sequence[Sample]
    controls: Sequence[Sample]
    readings: Sequence[Reading]
    mails: Sequence[str] = ()
    reads: Sequence[OrderRead] = ()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return what `to_json` wrote."""
        return TypeAdapter(cls).validate_json(text)

    def to_json(self) -> bytes:
        """Return all of it, to be looked at another time."""
        return TypeAdapter(type(self)).dump_json(self)

    def during(self, part: str, endpoint: str = "") -> list[Sample]:
        """Return the samples sent in a part of the script, of one endpoint or of all users'."""
        spans = [(one.told, one.ended) for one in self.stretches if one.phase.part == part]
        return [
            sample
            for sample in (self.controls if endpoint == CONTROL else self.samples)
            if endpoint in {"", sample.endpoint}
            and any(told <= sample.sent < ended for told, ended in spans)
        ]

    def faults_met(self, sample: Sample) -> set[str]:
        """Return the dependencies that were broken at any time while *sample* was under way."""
        met = (one.phase.faults for one in self.stretches if one.touches(sample))
        return {name for faults in met for name in faults}


class Play:
    """The script, played once against a running shop."""

    def __init__(
        self, shop: RunningShop, script: Script, tick: Callable[[Phase, float, int], None]
    ) -> None:
        """Prepare.

        Args:
            shop: A shop that is ready.
            script: What is to happen.
            tick: Told twice a second: the phase, its seconds so far, and the answers so far.
        """
        self._shop = shop
        self._layout = shop.layout
        self._script = script
        self._tick = tick
        self._samples: list[Sample] = []
        self._readings: list[Reading] = []
        self._reads: list[OrderRead] = []

    async def run(self) -> Recording:
        """Play the script; traffic runs from its beginning to its end."""
        timeout, limits = httpx.Timeout(GIVE_UP_SECONDS), httpx.Limits(max_connections=None)
        rates = {**self._script.rates, CONTROL: CONTROL_RATE}
        stop = asyncio.Event()
        # What it asks is seconds apart: a server may close a connection that was kept just then.
        once = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=timeout, limits=once) as control:
            async with (
                httpx.AsyncClient(
                    base_url=self._layout.url("front"), timeout=timeout, limits=limits
                ) as front,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(Traffic(front, rates, self._samples.append).run(stop))
                group.create_task(self._measure(stop))
                self._shoppers = Shoppers(front, self._samples.append, self._reads.append)
                stretches = [
                    await self._play(phase, control, front) for phase in self._script.phases
                ]
                stop.set()
            mails = await self._mails(control)
        return Recording(
            stretches=stretches,
            samples=[one for one in self._samples if one.endpoint != CONTROL],
            controls=[one for one in self._samples if one.endpoint == CONTROL],
            readings=self._readings,
            mails=mails,
            reads=self._reads,
        )

    async def _mails(self, control: httpx.AsyncClient) -> list[str]:
        """Return the ids of the mails that were sent, once all are that were promised.

        Those that are missing 20 s after the last one that came are taken for lost.
        """
        promised = {one.mail for one in self._samples if one.mail}
        sent: list[str] = []
        last = perf_counter()
        while not promised <= set(sent) and perf_counter() < last + MAIL_SECONDS:
            await asyncio.sleep(TICK_SECONDS)
            answer = await control.get(f"{self._layout.url('mail')}/messages")
            now = [one["message_id"] for one in answer.json()]
            last = perf_counter() if len(now) > len(sent) else last
            sent = now
        return sent

    async def _measure(self, stop: asyncio.Event) -> None:
        """Read twice a second what others use; in a thread, beside which traffic goes on."""
        meter = await asyncio.to_thread(LoadMeter, self._shop.measured)
        while not stop.is_set():
            await asyncio.sleep(TICK_SECONDS)
            self._readings.append(await asyncio.to_thread(meter.read))

    async def _play(
        self, phase: Phase, control: httpx.AsyncClient, front: httpx.AsyncClient
    ) -> Stretch:
        told = perf_counter()
        for name in BREAKABLE:
            fault = phase.faults.get(name, {"mode": "ok"})
            answer = await control.put(self._layout.fault_url(name), json=fault)
            answer.raise_for_status()
        began, stop = perf_counter(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if phase.rush:
                group.create_task(Traffic(front, phase.rush, self._samples.append).run(stop))
            if phase.shoppers:
                group.create_task(self._shoppers.run(phase.shoppers, stop))
            while (now := perf_counter()) < began + phase.seconds:
                self._tick(phase, now - began, len(self._samples))
                await asyncio.sleep(min(TICK_SECONDS, began + phase.seconds - now))
            stop.set()
        return Stretch(phase=phase, told=told, began=began, ended=perf_counter())
