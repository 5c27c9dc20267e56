"""The store half of a fan-out: one record that parts report to and that ends exactly once."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import redis.asyncio

from resilience.errors import NoStoredAnswerError
from resilience.store.answers import Answers
from resilience.store.connection import Store

KEEP_SECONDS = 300.0
"""How long a response can be read again after its fan-out has ended."""
CALLBACK_LEASE_SECONDS = 2.0
"""How long a callback may take to be published before another worker does it."""
SWEEP_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where one part reports; travels in the part's message.

    Attributes:
        fan: Id of the fan-out.
        part: The part's name.
        stale_seconds: How old its answer may be; 0: as old as it is.
        last: Whether the task's value is the part's; if not, only its failure is.
    """

    fan: str
    part: str
    stale_seconds: float = 0.0
    last: bool = True


class Memory(NamedTuple):
    """Where a part's last full answer is remembered, and for how many seconds."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a fan-out has collected.

    Attributes:
        spec: Names of all parts, in order, and whether each is required.
        ended: Raw payloads by part: `+` and the JSON of a value, or `-` and the JSON of a failure.
        stale: Remembered answers that stand in for failed and missing parts, with their age.
        final: Why it ended; None while it runs.
        late: Reports that came after the end.
        seen: What each part had seen that says so, as JSON.
        callback: JSON of the signature to publish, if there is one.
        first: Whether nobody has read the ended record before.
    """

    spec: list[tuple[str, bool]]
    ended: Mapping[str, bytes]
    stale: Mapping[str, tuple[Any, float]]
    final: str | None
    late: int
    seen: Sequence[bytes]
    callback: bytes | None
    first: bool


class FanIn:
    """Collects the parts of fan-outs. One exchange per step; see fanin.lua for the keys.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store, answers: Answers, *, owner: str = "") -> None:
        """Prepare.

        Args:
            store: Where records are kept.
            answers: Remembered answers, in the same namespace.
            owner: Whose workers finish what is opened here; who has another owner may report to a
                fan-out and end it, but never takes it from `take_due`.
        """
        self._store = store
        self._answers = answers
        self._due = store.key("fan", "due", owner)
        source = files("resilience.store")
        self._code = source.joinpath("fanin.lua").read_text()
        self._script = store.client.register_script(self._code)
        self._sweep = store.client.register_script(source.joinpath("sweep.lua").read_text())

    def open(
        self,
        fan: str,
        spec: Sequence[tuple[str, bool]],
        *,
        budget: float,
        memories: Mapping[str, Memory],
        callback: str = "",
    ) -> None:
        """Begin to collect; must happen before the first part is published.

        Args:
            fan: Id of the fan-out.
            spec: Names of all parts, in order, and whether each is required.
            budget: Seconds until somebody ends it.
            memories: By part, for those whose last full answer may stand in.
            callback: JSON of the signature to publish at the end.
        """
        stale = json.dumps([*memories]) if memories else ""
        wanted: list[str] = []
        for place, (part, required) in enumerate(spec):
            key, seconds = memories.get(part, ("", 0.0))
            life = int(seconds * 1000) if key else ""
            wanted += (f"w:{part}", f"{place};{required:d};{life};{key}")
        self._run(fan, "open", stale, callback, int(budget * 1000), *wanted)

    def report(self, slot: Slot, payload: str, *, full: bool, seen: str = "") -> str:
        """Tell how a part ended; only its first report counts.

        Args:
            slot: Which part.
            payload: `+` and the JSON of its value, or `-` and the JSON of why it failed.
            full: Whether the value may be remembered as a full answer.
            seen: What the part has seen, as JSON; empty: nothing.

        Returns:
            `in`, `duplicate`, `late`, `gone`, `unknown`: it has no such part, or, if the fan-out
            ended with it, as `finish`.
        """
        answer: bytes = self._run(slot.fan, "report", slot.part, payload, seen, int(full))
        return answer.decode()

    def finish(self, fan: str, why: str, *, lease_seconds: float = CALLBACK_LEASE_SECONDS) -> str:
        """End the fan-out unless it has ended.

        Args:
            fan: Which one.
            why: For the record.
            lease_seconds: How long the callback is left to this process; 0: any worker may
                publish it at once.

        Returns:
            `ended`; `callback` if there is a callback to publish; `already`; `gone`.
        """
        answer: bytes = self._run(fan, "finish", why, lease_seconds=lease_seconds)
        return answer.decode()

    async def finish_async(
        self, fan: str, why: str, *, lease_seconds: float = CALLBACK_LEASE_SECONDS
    ) -> str:
        """Do the same as `finish` without blocking the event loop."""
        answer: bytes = await self._run_async(fan, "finish", why, lease_seconds=lease_seconds)
        return answer.decode()

    def settle(self, fan: str) -> None:
        """Note that the callback was published."""
        self._run(fan, "settle")

    def next_due(self) -> float | None:
        """Return the fleet time at which the next fan-out is due; None: there is none."""
        first: Any = self._store.run(lambda client: client.zrange(self._due, 0, 0, withscores=True))
        return first[0][1] / 1000 if first else None

    def take_due(self) -> tuple[list[str], float | None]:
        """Return fan-outs that this process must finish now, and seconds until the next is due."""
        keys = [self._due]
        limits = [int(CALLBACK_LEASE_SECONDS * 1000), SWEEP_AT_ONCE]
        wait, *fans = self._store.run(lambda _: self._sweep(keys=keys, args=limits))
        return [fan.decode() for fan in fans], (wait / 1000 if wait >= 0 else None)

    def wait_done(self, fan: str, seconds: float) -> bool:
        """Return whether the fan-out ended within *seconds*; blocks on one key."""
        command = self._block("done", fan, "0", seconds)
        return self._store.wait(*command, seconds=seconds) is not None

    async def wait_done_async(self, fan: str, seconds: float) -> bool:
        """Do the same as `wait_done` without blocking the event loop."""
        command = self._block("done", fan, "0", seconds)
        return await self._store.wait_async(*command, seconds=seconds) is not None

    def wait_news(self, fan: str, after: str, seconds: float) -> tuple[str, list[str], bool]:
        """Wait at most *seconds* for something to happen after the mark *after*.

        Returns:
            The next mark, the parts that came in, and whether the fan-out has ended.
        """
        command = self._block("news", fan, after, seconds)
        answer = self._store.wait(*command, seconds=seconds)
        if answer is None:
            return after, [], False
        entries = answer[0][1]
        parts = [pair[1].decode() for _, pair in entries if pair[0] == b"part"]
        return entries[-1][0].decode(), parts, len(parts) < len(entries)

    def payloads(self, fan: str, parts: Sequence[str]) -> dict[str, bytes]:
        """Return the raw payloads of *parts* that came in."""
        if not parts:
            return {}
        names = [f"p:{part}" for part in parts]
        found: list[Any] = self._store.run(
            lambda client: client.hmget(self._store.key("fan", fan), names)
        )
        return {part: text for part, text in zip(parts, found, strict=True) if text is not None}

    def collect(self, fan: str) -> Record | None:
        """Return what has come in; None: the record is gone."""
        return self._read(self._run(fan, "collect"))

    async def collect_async(self, fan: str) -> Record | None:
        """Do the same as `collect` without blocking the event loop."""
        return self._read(await self._run_async(fan, "collect"))

    def _read(self, answer: list[Any]) -> Record | None:
        first, *flat = answer
        fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
        if not fields:
            return None
        stale = {}
        for name, text in fields.items():
            if name.startswith(b"s:"):
                left, _, remembered = text.partition(b";")
                with suppress(NoStoredAnswerError):  # as if nothing were remembered
                    found = self._answers.decode(remembered, int(left))
                    stale[name[2:].decode()] = (found.value, found.age)
        wanted = sorted(
            (int(place), name[2:].decode(), required == b"1")
            for name, text in fields.items()
            if name.startswith(b"w:")
            for place, required in [text.split(b";", 2)[:2]]
        )
        final = fields.get(b"final")
        return Record(
            spec=[(part, required) for _, part, required in wanted],
            ended={n[2:].decode(): text for n, text in fields.items() if n.startswith(b"p:")},
            stale=stale,
            final=final.decode() if final else None,
            late=int(fields.get(b"late", 0)),
            seen=[text for name, text in fields.items() if name.startswith(b"t:")],
            callback=fields.get(b"callback"),
            first=bool(first),
        )

    def _run(
        self, fan: str, *arguments: str | float, lease_seconds: float = CALLBACK_LEASE_SECONDS
    ) -> Any:  # noqa: ANN401 - by operation
        keys, values = self._call(fan, arguments, lease_seconds)
        return self._store.run(lambda _: self._script(keys=keys, args=values))

    async def _run_async(
        self, fan: str, *arguments: str | float, lease_seconds: float = CALLBACK_LEASE_SECONDS
    ) -> Any:  # noqa: ANN401 - by operation
        keys, values = self._call(fan, arguments, lease_seconds)

        async def exchange(client: redis.asyncio.Redis) -> object:
            return await client.register_script(self._code)(keys=keys, args=values)

        return await self._store.run_async(exchange)

    def _call(
        self, fan: str, arguments: Sequence[str | float], lease_seconds: float
    ) -> tuple[list[str], list[str | float]]:
        key = self._store.key
        keys = [key("fan", fan), key("fan", fan, "news"), key("fan", fan, "done")]
        keep, lease = int(KEEP_SECONDS * 1000), int(lease_seconds * 1000)
        return [*keys, self._due], [fan, keep, lease, *arguments]

    def _block(self, stream: str, fan: str, after: str, seconds: float) -> tuple[str, ...]:
        milliseconds = str(max(1, int(seconds * 1000)))
        return (
            "XREAD",
            "BLOCK",
            milliseconds,
            "STREAMS",
            self._store.key("fan", fan, stream),
            after,
        )
