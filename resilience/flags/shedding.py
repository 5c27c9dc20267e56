"""A call that is part of a feature: made, answered without the feature, or measured by a trial."""

from collections.abc import Sequence
from typing import Any

from resilience.errors import FeatureShedError
from resilience.fallback import Step
from resilience.flags.flags import Flags


class Shedding:
    """Decides for each call of one feature."""

    def __init__(self, feature: str, flags: Flags) -> None:
        """Decide by *flags* for the declared *feature*."""
        self._feature = feature
        self._flags = flags

    def call(
        self,
        through: Any,  # noqa: ANN401 - a pipeline, which knows of this module
        function: Any,  # noqa: ANN401 - handed on
        args: Any,  # noqa: ANN401 - handed on
        kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        """Call *function* through a pipeline, or answer without the feature."""
        drawn = self._flags.draw(self._feature)
        if drawn is True:
            return through.call(function, *args, **kwargs)
        if drawn is False:
            return through.degrade(*through.without(self._error(), function, args, kwargs))
        with drawn:
            if not drawn.shed:
                return drawn.judge(through.call(function, *args, **kwargs))
            call = through.without(self._error(trial=True), function, args, kwargs)
            return drawn.judge(through.degrade(*call))

    async def call_async(
        self,
        through: Any,  # noqa: ANN401 - a pipeline, which knows of this module
        function: Any,  # noqa: ANN401 - handed on
        args: Any,  # noqa: ANN401 - handed on
        kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        """Do the same without blocking the event loop."""
        await self._flags.freshen_async()
        drawn = self._flags.draw(self._feature)
        if drawn is True:
            return await through.call_async(function, *args, **kwargs)
        if drawn is False:
            call = through.without(self._error(), function, args, kwargs)
            return await through.degrade_async(*call)
        async with drawn:
            if not drawn.shed:
                return drawn.judge(await through.call_async(function, *args, **kwargs))
            call = through.without(self._error(trial=True), function, args, kwargs)
            return drawn.judge(await through.degrade_async(*call))

    def _error(self, *, trial: bool = False) -> FeatureShedError:
        return self._flags.shed_error(self._feature, trial=trial)


def steps_without(fallbacks: Sequence[tuple[Step, str]], level: int) -> dict[str, str]:
    """Return the steps that promise more than an answer of *level*, and why they are left out.

    If none promises less, all are asked.
    """
    why = "better than the level of the feature"
    better = {label: why for step, label in fallbacks if step.level < level}
    return better if len(better) < len(fallbacks) else {}
