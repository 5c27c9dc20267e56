"""The gate before calls that are part of a feature."""

from collections.abc import Callable, Sequence
from functools import partial

from resilience.errors import FeatureShedError
from resilience.fallback import Step
from resilience.flags.flags import Flags
from resilience.flags.trial import Draw


class FeatureGate:
    """Decides for each call of one feature whether it is made with the feature.

    Attributes:
        draw: Returns how to make one call; may ask the store.
    """

    def __init__(self, feature: str, flags: Flags, *, trials: bool = True) -> None:
        """Decide by *flags* for the declared *feature*; without *trials* none measures a call."""
        self._feature = feature
        self._flags = flags
        self.draw: Callable[[], Draw] = partial(flags.draw, feature, measurable=trials)

    async def draw_async(self) -> Draw:
        """Do the same as `draw` without blocking the event loop."""
        await self._flags.freshen_async()
        return self.draw()

    def error(self, draw: Draw) -> FeatureShedError:
        """Return why the call of *draw* is made without the feature."""
        return self._flags.shed_error(self._feature, trial=draw.trial)


def steps_above(fallbacks: Sequence[tuple[Step, str]], level: int) -> dict[str, str]:
    """Return the steps that promise more than an answer of *level*, and why they are left out.

    If none promises less, all are asked.
    """
    why = "better than the level of the feature"
    better = {label: why for step, label in fallbacks if step.level < level}
    return better if len(better) < len(fallbacks) else {}
