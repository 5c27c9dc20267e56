"""Recordings of the demo that are made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.load import Reading
from demo.script import PHASES, Recording, Stretch
from demo.traffic import CONTROL, Sample

PHASE_SECONDS = 10.0
STARTS = {phase.name: PHASE_SECONDS * nth for nth, phase in enumerate(PHASES)}
WARMING, BEFORE, FAILING, HANGING, PAYMENTS, AFTER, RUSH, CALM, *_ = STARTS.values()
MAILS = ("<1@shop.example>", "<2@shop.example>")
FULL: Mapping[str, Any] = {"level": 0, "partial": False}
RECORDINGS = Path(__file__).parent / "recordings"


def sample(
    endpoint: str = "search",
    *,
    sent: float = BEFORE + 1,
    seconds: float = 0.05,
    status: int = 200,
    meta: Mapping[str, Any] = FULL,
    error: str = "",
    mail: str = "",
) -> Sample:
    """Return a request that went well unless told otherwise."""
    return Sample(
        endpoint=endpoint,
        sent=sent,
        seconds=seconds,
        status=status,
        meta=meta,
        error=error,
        mail=mail,
    )


def recording(
    samples: Sequence[Sample],
    *,
    controls: Sequence[Sample] = (),
    busy: Sequence[tuple[float, float]] = (),
) -> Recording:
    """Return a recording of the real script, ten seconds a phase.

    Args:
        samples: What the users saw.
        controls: What the control did; nothing: it was not asked.
        busy: From when to when other programs used all of one processor.
    """
    stretches = [
        Stretch(
            phase=phase,
            told=STARTS[phase.name],
            began=STARTS[phase.name],
            ended=STARTS[phase.name] + PHASE_SECONDS,
        )
        for phase in PHASES
    ]
    return Recording(
        stretches=stretches,
        samples=samples,
        controls=controls,
        readings=readings(busy),
        mails=MAILS,
    )


def readings(busy: Sequence[tuple[float, float]]) -> list[Reading]:
    """Return two readings a second of what others used."""
    times = [nth / 2 for nth in range(int(2 * PHASE_SECONDS * len(PHASES)))]
    return [
        Reading(
            began=at,
            ended=at + 0.5,
            others=float(any(began <= at < ended for began, ended in busy)),
        )
        for at in times
    ]


def steady_controls(
    *slow: tuple[float, float], factor: float = 3.0, end: float = AFTER + PHASE_SECONDS
) -> list[Sample]:
    """Return a control of 20 ms, eight times a second, *factor* times that while it is *slow*."""
    times = [nth / 8 for nth in range(int(8 * end))]
    return [
        sample(
            CONTROL,
            sent=at,
            seconds=0.02 * (factor if any(began <= at < ended for began, ended in slow) else 1.0),
        )
        for at in times
    ]
