"""What the fleet counts and agrees on, in the store or in one process's memory.

Nothing here decides how a circuit changes. The breaker does, and `Swap` lets exactly one process
make each change.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Protocol

import redis.asyncio

from resilience.store.connection import Store
from resilience.store.flags import KEY as FLAGS

EVIDENCE = struct.Struct(">7Q")
WINDOW = struct.Struct(">5Q")
"""Wire formats of `Evidence` and `Window`: integers in RESP cost more than the counting itself."""
TOTALS = ("totals", "answers", "history", "exemplars")
"""Keys of what all processes have counted; see counts.lua."""
NUMBERS = re.compile(rb"(\d{1,16})\|(\d{1,16})\|", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A circuit as the store keeps it: two numbers for the scripts, and a body they do not read.

    Attributes:
        generation: See `resilience.breaker.state.Circuit`.
        until_ms: Likewise, in milliseconds.
        body: What else there is to know.
        raw: What the store has, if that is not what `text` would write.
    """

    generation: int
    until_ms: int
    body: str
    raw: bytes | None = None

    def text(self) -> str | bytes:
        """Return the stored text."""
        if self.raw is not None:
            return self.raw
        return f"{self.generation}|{self.until_ms}|{self.body}"

    @classmethod
    def parse(cls, text: bytes) -> "Kept":
        """Return the circuit that `text` returned *text* for.

        What is none has generation 0 and no body, as in pulse.lua: it can still be replaced.
        """
        found = NUMBERS.match(text)
        generation, until = map(int, found.groups()) if found else (0, 0)
        body = text[found.end() :].decode(errors="replace") if found else ""
        made = cls(generation=generation, until_ms=until, body=body)
        return made if str(made.text()).encode() == text else replace(made, raw=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one process has seen of one dependency since its last pulse.

    Attributes:
        name: The dependency.
        generation: Generation of the circuit when those calls began.
        window_seconds: Length of the window.
        ok: Calls that succeeded, slow ones included. They are counted when they arrive: a process
            that calls seldom reports each success with its next call. Backdated successes would
            often be too old to count, and failures, which are reported at once, would weigh too
            much.
        failed: Calls that failed, slow ones included.
        failed_age: Seconds since the last failure.
        slow: Calls that took too long, however they ended.
        tail: Failures since the last success.
    """

    name: str
    generation: int
    window_seconds: int
    ok: int = 0
    failed: int = 0
    failed_age: float = 0.0
    slow: int = 0
    tail: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What the whole fleet has seen of one dependency within its window."""

    calls: int = 0
    failed: int = 0
    slow: int = 0
    reporters: int = 0
    consecutive: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How the probes of a half-open circuit have ended so far.

    Attributes:
        granted: Whether the caller may probe.
        first: Whether it is the first probe of this generation.
        ok: Probes that passed.
        failed: Probes that failed.
    """

    granted: bool = False
    first: bool = False
    ok: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a process gets back for its evidence.

    Attributes:
        now: Fleet time in seconds.
        version: Version of the circuits; different circuits have different versions.
        circuits: All circuits that ever changed, by dependency; None if the process already knows
            this version.
        windows: Windows of the dependencies that it sent evidence of.
        flags: State of the features; empty if there is none, None if the process already knows
            this version or did not ask.
        counted: Empty if the batch that it sent is in the fleet's totals; why not, if the store
            could not add it; None if it sent none or the store was not asked.
    """

    now: float
    version: str
    circuits: Mapping[str, Kept] | None
    windows: Mapping[str, Window] = field(default_factory=dict)
    flags: bytes | None = None
    counted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one process has counted since its last batch, as JSON; see counts.lua."""

    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Add evidence of the current generations, and return what the fleet agreed on: a `Reply`.

    Attributes:
        process: The process that asks.
        evidence: What it has seen.
        version: Version of the circuits that it knows; empty if it knows none.
        flags: Version of the features that it knows; None if it does not ask for them.
        batch: What it has counted; None: nothing that is due, or nobody listens.
    """

    process: str
    evidence: Sequence[Evidence]
    version: str = ""
    flags: int | None = None
    batch: Batch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Replace the circuit by `new` if it is still `expected`: True if it was.

    Attributes:
        name: The dependency.
        expected: The circuit that the caller knows; None: there is none.
        new: The circuit from now on.
        change: What is kept of it in the history of the circuit; empty: nothing.
        again: Whether it opens without having closed; the last such change is kept.
    """

    name: str
    expected: Kept | None
    new: Kept
    change: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeProbe:
    """Take a permit to probe for `seconds`: `Probes`, or None if the circuit has moved on."""

    name: str
    generation: int
    owner: str
    most: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndProbe:
    """Return a permit as `ok`, `failed` or `neutral`: `Probes`, or None if it was not held."""

    name: str
    generation: int
    owner: str
    result: str


AGAIN = "~"
"""Marks that a circuit opened again without having closed: a long outage is not a long history."""


def history_key(name: str) -> tuple[str, str]:
    """Return the parts of the key of the history of the circuit of *name*."""
    return "history", name


Question = Exchange | Swap | TakeProbe | EndProbe
"""What a process can ask the fleet. Each question is one atomic step, and its class documents the
answer."""


class Fleet(Protocol):
    """What the processes of a fleet share."""

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Return the answer that the class of *question* documents."""
        ...


class StoreFleet:
    """The fleet of all processes that share a store.

    While the store is down `ask` and `ask_async` raise `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Share *store* with the other processes."""
        self._store = store
        source = files("resilience.store")
        self._codes = {
            name: source.joinpath(f"{name}.lua").read_text()
            for name in ("pulse", "swap", "probe", "counts")
        }
        pulse = f"local function pulse()\n{self._codes['pulse']}\nend\n"
        self._codes["counts"] = pulse + self._codes["counts"]
        self._scripts = {
            name: store.client.register_script(code) for name, code in self._codes.items()
        }

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Ask and wait."""
        script, keys, values = self._script_call(question)
        return self._read(question, self._store.run(lambda _: self._scripts[script](keys, values)))

    async def ask_async(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Ask without blocking the event loop."""
        script, keys, values = self._script_call(question)

        async def exchange(client: redis.asyncio.Redis) -> object:
            return await client.register_script(self._codes[script])(keys, values)

        return self._read(question, await self._store.run_async(exchange))

    def _read(self, question: Question, answer: Any) -> Any:  # noqa: ANN401 - by question
        if isinstance(question, Exchange):
            for key in answer[6]:
                self._store.unreadable(key.decode(), "a key of another type")
        return _read(question, answer)

    def _script_call(self, question: Question) -> tuple[str, list[str], list[str | bytes | float]]:
        """Return the script that answers *question*, its keys and its arguments."""
        key = self._store.key
        circuits = key("circuits")
        match question:
            case Exchange():
                keys = [circuits, key("told"), key(FLAGS), key("windows")]
                flags = "" if question.flags is None else question.flags
                values: list[str | bytes | float] = [
                    question.process,
                    flags,
                    question.version,
                    b"".join(map(_packed, question.evidence)),
                    *(evidence.name for evidence in question.evidence),
                ]
                if question.batch is None:
                    return "pulse", keys, values
                keys += [key("counted", question.process), *map(key, TOTALS)]
                return "counts", keys, [*values, question.batch.text]
            case Swap(name=name, expected=expected, new=new, change=change, again=again):
                before = expected.text() if expected else ""
                keys = [circuits, key("probes", name), key(*history_key(name))]
                return "swap", keys, [name, before, new.text(), AGAIN * again + change]
            case TakeProbe(name=name, generation=generation, owner=owner):
                lease = int(question.seconds * 1000)
                values = [name, generation, owner, "take", question.most, lease]
                return "probe", [circuits, key("probes", name)], values
            case EndProbe(name=name, generation=generation, owner=owner):
                values = [name, generation, owner, question.result]
                return "probe", [circuits, key("probes", name)], values


def _read(question: Question, answer: Any) -> Any:  # noqa: ANN401 - by question
    match question:
        case Swap():
            return bool(answer)
        case TakeProbe() | EndProbe():
            if answer is None:
                return None
            granted, first, ok, failed = answer
            return Probes(granted=bool(granted), first=bool(first), ok=ok, failed=failed)
        case Exchange():
            seconds, microseconds, version, circuits, flags, windows, _, *counted = answer
            return Reply(
                now=int(seconds) + int(microseconds) / 1e6,
                version=version.decode(),
                circuits=None if circuits is None else _circuits(circuits),
                windows={
                    evidence.name: Window(
                        calls=calls,
                        failed=failed,
                        slow=slow,
                        reporters=reporters,
                        consecutive=consecutive,
                    )
                    for evidence, (calls, failed, slow, reporters, consecutive) in zip(
                        question.evidence, WINDOW.iter_unpack(windows), strict=True
                    )
                },
                flags=flags,
                counted=counted[0].decode(errors="replace") if counted else None,
            )


def _packed(evidence: Evidence) -> bytes:
    return EVIDENCE.pack(
        evidence.generation,
        evidence.window_seconds,
        evidence.ok,
        evidence.failed,
        int(evidence.failed_age),
        evidence.slow,
        evidence.tail,
    )


def _circuits(pairs: Sequence[bytes]) -> Mapping[str, Kept]:
    names = [name.decode(errors="replace") for name in pairs[::2]]
    return dict(zip(names, map(Kept.parse, pairs[1::2]), strict=True))
