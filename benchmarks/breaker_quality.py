"""How well a breaker judges, in simulated time: what it lets through, and what it refuses.

930 calls a second from eight processes, each 20 ms long; the worst of several seeds counts. The
scenarios are those that Semian published figures for, and the peers the usual counting breaker, one
in each process: 5 failures in a row (the defaults of pybreaker), or 5 within 10 seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.breaker_simulation import (
    ClassicFleet,
    Fleet,
    Phase,
    SharedFleet,
    SimulatedClock,
    Tally,
    simulate,
)
from benchmarks.figure import Figure
from resilience.breaker import BreakerPolicy

LOST_AT_20_PERCENT_ERRORS = 0.01
BAD_IN_OUTAGE = 170
LOST_AFTER_OUTAGE = 0.12
LOST_TO_A_HOST = 0.05

OPENINGS_A_MINUTE = 40
"""At 50 % errors, where it is a coin's toss whether a round of probes closes the circuit."""
DEFAULT = BreakerPolicy()

OURS, ALONE = "default_8_processes", "default_1_process"

FLEETS: Mapping[str, Callable[[SimulatedClock], Fleet]] = {
    OURS: partial(SharedFleet, processes=8, policy=DEFAULT),
    ALONE: partial(SharedFleet, processes=1, policy=DEFAULT),
    "open_5_to_60_s": partial(
        SharedFleet,
        processes=8,
        policy=BreakerPolicy(open_seconds=5.0, open_seconds_max=60.0),
    ),
    "ratio_alone": partial(
        SharedFleet, processes=8, policy=BreakerPolicy(consecutive_failures=None)
    ),
    "classic_5_in_a_row_60_s": partial(ClassicFleet, processes=8, window_seconds=None),
    "classic_5_in_10_s_60_s": partial(ClassicFleet, processes=8, window_seconds=10.0),
}


Results = Mapping[str, list[Tally]]


def run(*, quick: bool) -> Iterator[Figure]:
    """Simulate; *quick* takes fewer seeds."""
    seeds = range(1 if quick else 8)
    (steady,) = _simulated([Phase(60.0, 0.2)], seeds)
    yield _worst("lost_at_20_percent_errors", steady, "lost", LOST_AT_20_PERCENT_ERRORS)
    yield _worst("openings_at_20_percent_errors", steady, "openings", 0)
    _, outage, after = _simulated([Phase(20.0, 0.0), Phase(20.0, 1.0), Phase(20.0, 0.0)], seeds)
    yield _worst("bad_calls_in_outage", outage, "bad", BAD_IN_OUTAGE)
    yield _worst("closings_in_outage", outage, "closings", 0)
    yield _worst("lost_after_outage", after, "lost", LOST_AFTER_OUTAGE)
    yield _worst("closings_after_outage", after, "closings", 1)
    *_, lone = _simulated([Phase(12.0, 0.0), Phase(20.0, 0.0, broken=1)], seeds)
    yield _worst("lost_with_1_of_8_hosts_broken", lone, "lost", LOST_TO_A_HOST, alone=False)
    (half,) = _simulated([Phase(60.0, 0.5)], seeds)
    yield _worst("openings_a_minute_at_50_percent_errors", half, "openings", OPENINGS_A_MINUTE)


def _simulated(phases: Sequence[Phase], seeds: Sequence[int]) -> list[Results]:
    """Return the results of each phase: tallies by fleet, one for each seed."""
    runs = {
        name: [simulate(fleet, phases, seed=seed) for seed in seeds]
        for name, fleet in FLEETS.items()
    }
    return [
        {name: [tallies[at] for tallies in runs[name]] for name in FLEETS}
        for at in range(len(phases))
    ]


def _worst(
    name: str, results: Results, attribute: str, bound: float, *, alone: bool = True
) -> Figure:
    worst = {
        fleet: max(float(getattr(tally, attribute)) for tally in tallies)
        for fleet, tallies in results.items()
    }
    calls = results[OURS][0].calls
    return Figure(
        name=f"quality_{name}",
        value=max(worst[OURS], worst[ALONE]) if alone else worst[OURS],
        unit="share" if attribute == "lost" else "count",
        bound=bound,
        sides={**{fleet: round(value, 3) for fleet, value in worst.items()}, "calls": calls},
    )
