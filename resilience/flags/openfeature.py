"""The features of an app for code that asks OpenFeature; needs the extra `openfeature`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Never, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagMetadata, FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from resilience.flags.decision import Decision, Source
from resilience.flags.flags import Flags

T = TypeVar("T")
Context = EvaluationContext | None
Structure = Sequence[FlagValueType] | Mapping[str, FlagValueType]

METADATA = Metadata(name="celery-resilience")


class ResilienceProvider(AbstractProvider):
    """Answers OpenFeature clients from the flags of a Celery app.

    A feature is a boolean flag: whether it is on. The same flag as an object says why, and how good
    answers are now. The evaluation context is not used. When the store is down, the answers are
    those of `Flags`.

    The reason is STATIC while the declaration holds, and otherwise the source of the decision:
    ORDER, BROWNOUT or CONTROLLER. It is never DISABLED, and a shed feature is never FLAG_NOT_FOUND:
    on both, a client of several providers would ask the next one, which might switch the feature
    on.

    The provider is ready as soon as it is set, also in children that are forked later, as it needs
    no thread.
    """

    def __init__(self, flags: Flags) -> None:
        """Answer from *flags*, which are those of `Resilience(app, …).flags`."""
        self._flags = flags
        self._known: dict[str, tuple[Decision, FlagMetadata]] = {}

    @property
    def initialize(self) -> Never:
        """Be missing, so that the SDK asks at once; it would have a thread initialise the provider.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError

    def get_metadata(self) -> Metadata:
        """Return the name of this provider."""
        return METADATA

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: Context = None
    ) -> FlagResolutionDetails[bool]:
        """Return whether the feature is on."""
        decision = self._decide(flag_key)
        if decision is None:
            return _not_found(flag_key, default_value)
        return self._resolved(decision, decision.enabled)

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: Context = None
    ) -> FlagResolutionDetails[bool]:
        """Do the same without blocking the event loop."""
        await self._flags.freshen_async()
        return self.resolve_boolean_details(flag_key, default_value)

    def resolve_object_details(
        self, flag_key: str, default_value: Structure, evaluation_context: Context = None
    ) -> FlagResolutionDetails[Structure]:
        """Return whether the feature is on, why, and how good answers are now.

        The keys are those of a `Decision`, and `level_name`.
        """
        decision = self._decide(flag_key)
        if decision is None:
            return _not_found(flag_key, default_value)
        value: dict[str, Any] = {**asdict(decision), "level_name": decision.level.name}
        return self._resolved(decision, value)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Structure, evaluation_context: Context = None
    ) -> FlagResolutionDetails[Structure]:
        """Do the same without blocking the event loop."""
        await self._flags.freshen_async()
        return self.resolve_object_details(flag_key, default_value)

    def _mismatch(
        self, flag_key: str, default_value: T, evaluation_context: Context = None
    ) -> FlagResolutionDetails[T]:
        """Return the default: no feature is a string or a number."""
        if str(flag_key) not in self._flags.features:
            return _not_found(flag_key, default_value)
        message = f"feature {flag_key!r} is a boolean, or an object that says why"
        return FlagResolutionDetails(default_value, ErrorCode.TYPE_MISMATCH, message, Reason.ERROR)

    resolve_string_details = resolve_integer_details = resolve_float_details = _mismatch

    def _decide(self, key: str) -> Decision | None:
        """Return what holds; None: there is no such feature."""
        try:
            return self._flags.decide(key)
        except (KeyError, TypeError):  # the latter for a list, say
            return None

    def _resolved(self, decision: Decision, value: T) -> FlagResolutionDetails[T]:
        known = self._known.get(decision.feature)
        if known is None or known[0] is not decision:
            told = {**asdict(decision), "version": str(decision.version)}
            told["flagSetId"] = self._flags.set_id
            told = {name: one for name, one in told.items() if one is not None}
            known = self._known[decision.feature] = decision, MappingProxyType(told)
        source = decision.source
        return FlagResolutionDetails(
            value=value,
            reason=Reason.STATIC if source is Source.DEFAULT else source.upper(),
            variant="on" if decision.enabled else "off",
            flag_metadata=known[1],
        )


def _not_found(key: str, default: T) -> FlagResolutionDetails[T]:
    message = f"no feature {key!r} is declared"
    return FlagResolutionDetails(default, ErrorCode.FLAG_NOT_FOUND, message, Reason.ERROR)
