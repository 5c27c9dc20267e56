"""An app that follows the flags of an OpenFeature provider, and asks its own through OpenFeature.

The flag service is a server of tests: a feature is off there while a key of its name is there.
"""

import os
from typing import Any

import redis
from celery import Celery
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryProvider

from resilience import (
    Dependency,
    Feature,
    FollowProvider,
    Level,
    Resilience,
    Settings,
    SheddingPolicy,
)
from resilience.flags.openfeature import ResilienceProvider

ENV = os.environ  # noqa: TID251 - an entry point


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(ENV["DESK_URL"], decode_responses=True, socket_timeout=10)


class Service(InMemoryProvider):
    """The provider of the flag service; notes which process sets it up."""

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Note it."""
        assert evaluation_context is not None
        with desk() as client:
            client.rpush("initialised", os.getpid())

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - OpenFeature's signature
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Ask the service."""
        assert (default_value, evaluation_context) != (False, None)
        with desk() as client:
            on = not client.exists(flag_key)
        return FlagResolutionDetails(on, reason=Reason.TARGETING_MATCH)


app: Celery[Any] = Celery(
    "following", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
resilience = Resilience(
    app,
    dependencies=[Dependency("search")],
    features=[Feature("ranking", level=Level.REDUCED)],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
    intent=FollowProvider(Service({})),
    settings=Settings(
        store_url=ENV["DESK_URL"],
        store_timeout_seconds=0.5,
        ledger_url=ENV["RESILIENCE_LEDGER_URL"],
    ),
)
api.set_provider(ResilienceProvider(resilience.flags))  # before the pool forks
CLIENT = api.get_client()


@app.task(shared=False)
def ask() -> tuple[int, bool, str]:
    """Return who answers, whether the feature is on, and why."""
    found = CLIENT.get_boolean_details(flag_key="ranking", default_value=True)
    return os.getpid(), found.value, str(found.reason)


@app.task(shared=False, ignore_result=True)
def tell(key: str) -> None:
    """Say that it ran."""
    with desk() as client:
        client.rpush(key, "ran")
