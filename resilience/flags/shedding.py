"""A call that is part of a feature: made, answered without the feature, or measured by a trial."""

from collections.abc import Sequence
from typing import Any, Literal

from resilience.errors import FeatureShedError
from resilience.fallback import Step
from resilience.flags.flags import Flags
from resilience.flags.trial import Arm


class Shedding:
    """Decides for each call of one feature."""

    def __init__(self, feature: str, flags: Flags) -> None:
        """Decide by *flags* for the declared *feature*."""
        self._feature = feature
        self._flags = flags

    def side(self) -> bool | Arm:
        """Return whether the feature is on now, or on which side of a trial this call is."""
        return self._flags.arm(self._feature)

    def call(
        self,
        side: Arm | Literal[False],
        through: Any,  # noqa: ANN401 - a pipeline, which knows of this module
        function: Any,  # noqa: ANN401 - handed on
        args: Any,  # noqa: ANN401 - handed on
        kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        """Call *function* through a pipeline, or answer without the feature, as *side* says."""
        if side is Arm.NEITHER:
            return through.call(function, *args, **kwargs)
        if side is False:
            return through.degrade(*through.without(self._error(), function, args, kwargs))
        with self._flags.trial(self._feature).measured(side):
            if side is Arm.SHED:
                return through.degrade(*through.without(self._error(side), function, args, kwargs))
            return through.call(function, *args, **kwargs)

    async def call_async(
        self,
        side: Arm | Literal[False],
        through: Any,  # noqa: ANN401 - a pipeline, which knows of this module
        function: Any,  # noqa: ANN401 - handed on
        args: Any,  # noqa: ANN401 - handed on
        kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        """Do the same without blocking the event loop."""
        if side is Arm.NEITHER:
            return await through.call_async(function, *args, **kwargs)
        if side is False:
            call = through.without(self._error(), function, args, kwargs)
            return await through.degrade_async(*call)
        with self._flags.trial(self._feature).measured(side):
            if side is Arm.SHED:
                call = through.without(self._error(side), function, args, kwargs)
                return await through.degrade_async(*call)
            return await through.call_async(function, *args, **kwargs)

    def _error(self, side: Arm | None = None) -> FeatureShedError:
        return self._flags.shed_error(self._feature, side)


def steps_without(fallbacks: Sequence[tuple[Step, str]], level: int) -> dict[str, str]:
    """Return the steps that promise more than an answer of *level*, and why they are left out.

    If none promises less, all are asked.
    """
    why = "better than the level of the feature"
    better = {label: why for step, label in fallbacks if step.level < level}
    return better if len(better) < len(fallbacks) else {}
