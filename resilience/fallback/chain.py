"""What makes steps a chain, and how often the chain is drilled."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from resilience.budget.limits import is_number
from resilience.errors import ConfigurationError
from resilience.fallback.steps import Entry, Step

SHARE_MIN: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Drill(Entry):
    """An entry of a declared chain that is no step: how often it is drilled; made by `drill`.

    Attributes:
        share: Share of the full answers after which the chain is asked, in [0, 1].
    """

    share: float


class Chain(tuple[Step, ...]):  # noqa: SLOT001 - it has attributes, which no tuple has slots for
    """The steps of a fallback chain, best first.

    Attributes:
        drill_share: Share of the full answers after which the chain is asked, in [0, 1].
        remember_seconds: How long full answers must be remembered for its steps; 0: not at all.
    """

    drill_share: float
    remember_seconds: float

    def __new__(cls, steps: Iterable[Step] = (), drill_share: float = 0.0) -> Self:
        """Make a chain of *steps* whose levels do not decrease."""
        made = super().__new__(cls, steps)
        made.drill_share = drill_share
        made.remember_seconds = max((one.remember_seconds or 0.0 for one in made), default=0.0)
        return made

    def labelled(self) -> Iterator[tuple[Step, str]]:
        """Yield each step with its name in reasons, such as `2. cached:popular`."""
        for number, step in enumerate(self, start=1):
            yield step, f"{number}. {step.source}"


def drill(*, share: float) -> Drill:
    """Ask the chain after a share of the full answers, too, and report what it would have answered.

    Put it into `fallbacks`, anywhere among the steps. See docs/drills.md.

    Args:
        share: Share of the full answers, from 1e-6 to 1; with 0.001, a process drills each
            1,000th. 0: none.

    Raises:
        ConfigurationError: *share* is out of range.
    """
    if not is_number(share) or not (share == 0 or SHARE_MIN <= share <= 1):
        msg = f"fallback.drill: share must be 0, or from {SHARE_MIN} to 1, got {share!r}"
        raise ConfigurationError(msg)
    return Drill(float(share))


def check_chain(steps: Sequence[Entry], *, where: str) -> Chain:
    """Return *steps* as a chain if they form one.

    Raises:
        ConfigurationError: They are no list, something in it is no step, a better level follows a
            worse one, or the list has two drills or nothing to drill; the message says *where*.
    """
    if isinstance(steps, Chain):
        return steps
    if not isinstance(steps, (list, tuple)):
        msg = f"{where}: fallbacks must be a list of steps, got {steps!r}"
        raise ConfigurationError(msg)
    drills = [one for one in steps if isinstance(one, Drill)]
    kept = [one for one in steps if not isinstance(one, Drill)]
    for step in kept:
        if not isinstance(step, Step):
            msg = (
                f"{where}: {step!r} is no fallback step; "
                "use fallback.stale, .cached, .call or .static"
            )
            raise ConfigurationError(msg)
    for better, worse in itertools.pairwise(kept):
        if worse.level < better.level:
            msg = (
                f"{where}: fallback {worse!r} stands behind {better!r}; "
                "levels must not decrease along the chain"
            )
            raise ConfigurationError(msg)
    if len(drills) > 1:
        msg = f"{where}: fallbacks has {len(drills)} drills; keep one fallback.drill"
        raise ConfigurationError(msg)
    if drills and not any(step.drilled for step in kept):
        msg = f"{where}: fallback.drill has no step to ask; add one, or remove the drill"
        raise ConfigurationError(msg)
    return Chain(kept, drills[0].share if drills else 0.0)
