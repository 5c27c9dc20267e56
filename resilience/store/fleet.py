"""What the fleet counts and agrees on, in the store or in one process's memory.

Nothing here decides: how a circuit changes is the breaker's logic, and `swap` lets exactly one
process make a change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

import redis.asyncio

from resilience.errors import StoreUnavailableError
from resilience.store.connection import Store
from resilience.store.flags import KEY as FLAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A circuit as it is kept: two numbers that the scripts read, and a text they do not."""

    generation: int
    until_ms: int
    body: str

    def text(self) -> str:
        """Return the stored text."""
        return f"{self.generation}|{self.until_ms}|{self.body}"

    @classmethod
    def parse(cls, text: bytes) -> "Kept":
        """Return what `text` wrote.

        Raises:
            StoreUnavailableError: It did not write this: the store is in other hands.
        """
        try:
            generation, until, body = text.decode().split("|", 2)
            return cls(generation=int(generation), until_ms=int(until), body=body)
        except ValueError as error:
            msg = f"the store keeps {text!r}, which is no circuit"
            raise StoreUnavailableError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one process has seen of one dependency since it last said so.

    Attributes:
        name: The dependency.
        generation: Of the circuit, when those calls began.
        window_seconds: Length of the window.
        ok: Calls that ended well, slow ones among them. They count as of now: a process that calls
            seldom tells of each with the next, and if they were too old by then, its failures,
            which are told at once, would weigh more than they should.
        failed: Calls that failed, slow ones among them.
        failed_age: Seconds since the last one failed.
        slow: Calls that took too long, however they ended.
        tail: Failures since the last call that ended well.
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
    """What the whole fleet has seen of one dependency lately."""

    calls: int = 0
    failed: int = 0
    slow: int = 0
    reporters: int = 0
    consecutive: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How the probes of a half-open circuit ended so far.

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
        circuits: All circuits that ever changed, by dependency.
        windows: Windows of the dependencies it sent evidence of.
        flags: State of the features, if that is another version than it knows; empty: there is
            none.
    """

    now: float
    circuits: Mapping[str, Kept] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    flags: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Add evidence, unless its generation has passed, and learn what is agreed: a `Reply`.

    Attributes:
        process: Who saw it.
        evidence: What it saw.
        flags: Version of the state of the features that it knows; None: it wants none.
    """

    process: str
    evidence: Sequence[Evidence]
    flags: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Make `new` the circuit if it is still `expected`: True if it was."""

    name: str
    expected: Kept | None
    new: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeProbe:
    """Ask for a permit to probe, a lease of `seconds`: `Probes`; None if the circuit moved on."""

    name: str
    generation: int
    owner: str
    most: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndProbe:
    """Give a permit back as `ok`, `failed` or `neutral`: `Probes`; None if it was not held."""

    name: str
    generation: int
    owner: str
    result: str


Question = Exchange | Swap | TakeProbe | EndProbe
"""What a process can ask the fleet; each is one atomic step."""


class Fleet(Protocol):
    """Where processes meet."""

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Return the answer that the question's class names."""
        ...


class StoreFleet:
    """The fleet of all processes that share a store.

    When the store is down asking raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Meet in *store*."""
        self._store = store
        source = files("resilience.store")
        self._codes = {
            name: source.joinpath(f"{name}.lua").read_text() for name in ("pulse", "swap", "probe")
        }
        self._scripts = {
            name: store.client.register_script(code) for name, code in self._codes.items()
        }

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Ask and wait."""
        script, keys, values = self._written(question)
        return _read(question, self._store.run(lambda _: self._scripts[script](keys, values)))

    async def ask_async(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Ask without blocking the event loop."""
        script, keys, values = self._written(question)

        async def exchange(client: redis.asyncio.Redis) -> object:
            return await client.register_script(self._codes[script])(keys, values)

        return _read(question, await self._store.run_async(exchange))

    def _written(self, question: Question) -> tuple[str, list[str], list[str | float]]:
        key = self._store.key
        circuits = key("circuits")
        match question:
            case Exchange():
                windows = [key("window", one.name) for one in question.evidence]
                keys = [circuits, key("told"), key(FLAGS), *windows]
                flags = "" if question.flags is None else question.flags
                values: list[str | float] = [question.process, flags]
                for one in question.evidence:
                    values += [one.name, one.generation, one.window_seconds]
                    values += [one.ok, one.failed, int(one.failed_age), one.slow, one.tail]
                return "pulse", keys, values
            case Swap(name=name, expected=expected, new=new):
                before = expected.text() if expected else ""
                keys = [circuits, key("window", name), key("probes", name)]
                return "swap", keys, [name, before, new.text()]
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
            seconds, microseconds, circuits, flags, *windows = answer
            names = [name.decode() for name in circuits[::2]]
            return Reply(
                now=int(seconds) + int(microseconds) / 1e6,
                circuits=dict(zip(names, map(Kept.parse, circuits[1::2]), strict=True)),
                windows={
                    one.name: Window(
                        calls=calls, failed=failed, slow=slow, reporters=by, consecutive=row
                    )
                    for one, (calls, failed, slow, by, row) in zip(
                        question.evidence, windows, strict=True
                    )
                },
                flags=flags,
            )
