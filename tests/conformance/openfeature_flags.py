"""The flags of an app, the provider of them, and a client that asks it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.flag_evaluation import (
    FlagEvaluationDetails,
    FlagResolutionDetails,
)
from openfeature.hook import Hook, HookContext, HookHints

from resilience.flags import Feature, Features, Flags
from resilience.flags.document import Document, Shed, TrialPlan
from resilience.flags.openfeature import ResilienceProvider
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess

FEATURES = (
    Feature("search.ranking", level=Level.REDUCED),
    Feature("search.spelling", level=Level.STALE),
    Feature("beta", level=Level.REDUCED, default=False),
)
WHO = {"actor": "ann", "reason": "too slow"}
RANKING = "search.ranking"


@contextmanager
def flags_at(url: str) -> Iterator[Flags]:
    """Yield the flags of a fleet of their own."""
    store = Store(url, namespace=uuid4().hex, timeout_seconds=1.0)
    yield Flags(Features(FEATURES, []), Pulse(StoreFleet(store)), FlagStore(store))
    store.client.close()


def shed(flags: Flags, name: str) -> None:
    """Shed a feature as the controller does."""

    def edit(now: Document, time: float) -> Document:
        entry = Shed(rule="open:ranking", measured=0.8, threshold=0.5, since=time)
        return now.model_copy(update={"shed": {**now.shed, name: entry}})

    flags.change(edit)


def plan_trial(flags: Flags, name: str) -> None:
    """Run a trial that sheds a feature for one call in two."""

    def edit(now: Document, time: float) -> Document:
        until = time + 60
        plan = TrialPlan(id="t", share=0.5, began=time - 1, until=until, actor="ann", reason="?")
        return now.model_copy(update={"trials": {name: plan}})

    flags.change(edit)


@pytest.fixture
def flags(valkey: ValkeyProcess) -> Iterator[Flags]:
    """The flags of an app."""
    with flags_at(valkey.url) as made:
        yield made


@pytest.fixture
def provider(flags: Flags) -> ResilienceProvider:
    """The provider of these flags."""
    return ResilienceProvider(flags)


@pytest.fixture
def client(provider: ResilienceProvider) -> Iterator[OpenFeatureClient]:
    """A client that asks the provider; set as users set it."""
    api.set_provider(provider)
    yield api.get_client()
    api.shutdown()


KINDS: dict[str, Any] = {
    "boolean": True,
    "string": "x",
    "integer": 7,
    "float": 0.5,
    "object": {"a": 1},
}
"""Kinds of flags, and a default of each."""


def resolve(provider: ResilienceProvider, kind: str, name: str) -> FlagResolutionDetails[Any]:
    """Ask the provider for a flag of *kind*."""
    found: FlagResolutionDetails[Any] = getattr(provider, f"resolve_{kind}_details")(
        flag_key=name, default_value=KINDS[kind], evaluation_context=None
    )
    return found


class Seen(Hook):
    """Notes what hooks are given."""

    def __init__(self) -> None:
        self.calls: list[tuple[HookContext, FlagEvaluationDetails[Any]]] = []

    def finally_after(
        self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints
    ) -> None:
        """Note them."""
        assert hints == {}
        self.calls.append((hook_context, details))
