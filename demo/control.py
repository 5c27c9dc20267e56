"""How late the machine made everything, whoever was asked.

While the demo runs, it also asks for something that calls no dependency but takes the same way:
front, broker, a worker, store (see `jobs.ping`). Where other programs used the processors and
this control was late, other requests were late for the same reason.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Final

import psutil

from demo.load import Reading
from demo.script import Recording
from demo.traffic import Sample, percentile

OTHERS_MAX: Final = 0.25
"""Processors' worth of other programs beside which a lateness is not the shop's own."""
BUSY_SHARE: Final = 0.05
"""Of a part of the script: a few seconds."""
USUAL_SHARE: Final = 0.25
AROUND_SECONDS: Final = 0.25
"""How long before and after a request something is part of its moment."""


class Control:
    """What the control and the processors say of any moment of a recording.

    Attributes:
        usual_seconds: How long the control takes; a quarter of the time it takes less.
    """

    def __init__(self, recording: Recording) -> None:
        """Prepare; a recording without a control excuses nothing."""
        self._controls: Sequence[Sample] = recording.controls
        self._readings: Sequence[Reading] = recording.readings
        self.usual_seconds = percentile(self._controls, USUAL_SHARE)

    def lateness(self, sample: Sample) -> float:
        """Return by how many seconds the machine made *sample* late.

        That is how late the control was while *sample* was under way, or how late *sample* was
        sent, whichever is more. Zero where others did not use the processors: who else but the
        shop is late then?
        """
        if not self._controls or self.others_beside(sample) <= OTHERS_MAX:
            return 0.0
        control = max(self._beside(sample), default=0.0)
        return max(0.0, sample.held, control - self.usual_seconds)

    def slowdown(self, sample: Sample) -> float:
        """Return how many times as long as usual the control took then; at least 1."""
        return 1.0 + self.lateness(sample) / self.usual_seconds if self._controls else 1.0

    def others_beside(self, sample: Sample) -> float:
        """Return how many processors others used at most while *sample* was under way."""
        began, ended = _moment(sample)
        return max(
            (one.others for one in self._readings if one.began <= ended and one.ended >= began),
            default=0.0,
        )

    def _beside(self, sample: Sample) -> Iterator[float]:
        began, ended = _moment(sample)
        for one in self._controls:
            if one.sent <= ended and one.sent + one.seconds >= began:
                yield one.seconds


def was_busy(recording: Recording, *parts: str) -> bool:
    """Tell whether other programs used the processors for some time in one of *parts*.

    By default those are before and during the outage.
    """
    return any(
        sum(one.others > OTHERS_MAX for one in readings) > BUSY_SHARE * len(readings)
        for readings in (_readings(recording, part) for part in parts or ("before", "during"))
    )


def not_judged(recording: Recording) -> str:
    """Return why a promise is not judged: what others used in the busiest part of the script."""
    averages = (
        fmean([one.others for one in readings])
        for part in ("before", "during", "after")
        if (readings := _readings(recording, part))
    )
    used = max(averages, default=0.0)
    return f"not judged: other programs used {used:.1f} of {psutil.cpu_count()} processors"


def _readings(recording: Recording, part: str) -> list[Reading]:
    stretches = [one for one in recording.stretches if one.phase.part == part]
    return [
        reading
        for reading in recording.readings
        if any(one.told <= reading.began < one.ended for one in stretches)
    ]


def _moment(sample: Sample) -> tuple[float, float]:
    return sample.sent - AROUND_SECONDS, sample.sent + sample.seconds + AROUND_SECONDS
