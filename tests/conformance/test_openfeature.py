"""The provider for OpenFeature: the requirements of its specification, v0.9.0.

Each test of a requirement bears its number. These are the SDK's alone, and no provider can meet or
break them:

    1.1.1 one API per process             1.2.1 hooks of a client
    1.1.4 hooks of the API                1.2.2 domain of a client
    1.1.6 clients by domain               1.4.4.1 generic evaluation details
    1.1.7 making a client never raises    1.5.1 hooks of an evaluation
    1.6.2 shutdown resets the API         1.8.1, 1.8.2, 1.8.3, 1.8.4 more than one API

These are of clients whose context is static, as in a browser: 1.3.2.1, 1.4.2.1, 1.7.2.1, 2.6.1,
2.8.4. These are of providers that define `initialize`, or are bound to a domain, or lose their
service; this one does none of that: 1.1.8.1, 1.7.4, 1.7.5, 2.4.2.1, 2.4.4, 2.8.2, 2.8.3.
"""

import asyncio
import inspect
import logging
import re
import threading
from typing import Any, get_origin

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import (
    FlagEvaluationDetails,
    FlagEvaluationOptions,
    FlagResolutionDetails,
    Reason,
)
from openfeature.provider import AbstractProvider, ProviderStatus

from resilience.flags import Flags
from resilience.flags.openfeature import ResilienceProvider
from resilience.testing.waiting import wait_until
from tests.conformance.openfeature_flags import (
    KINDS,
    RANKING,
    WHO,
    Seen,
    client,
    flags,
    provider,
    resolve,
    shed,
)

__all__ = ["client", "flags", "provider"]

REQUIREMENTS = """
1.1.1 1.1.2.1 1.1.2.2 1.1.2.3 1.1.2.4 1.1.3 1.1.4 1.1.5 1.1.6 1.1.7 1.1.8.1 1.2.1 1.2.2 1.3.1.1
1.3.2.1 1.3.3.1 1.3.4 1.4.1.1 1.4.2.1 1.4.3 1.4.4.1 1.4.5 1.4.6 1.4.7 1.4.8 1.4.9 1.4.10 1.4.11
1.4.12 1.4.13 1.4.14 1.4.15.1 1.5.1 1.6.1 1.6.2 1.7.1 1.7.2.1 1.7.3 1.7.4 1.7.5 1.7.6 1.8.1
1.8.2 1.8.3 1.8.4 2.1.1 2.2.1 2.2.2.1 2.2.3 2.2.4 2.2.5 2.2.6 2.2.7 2.2.8.1 2.2.9 2.2.10 2.3.1
2.3.2 2.3.3 2.4.1 2.4.2.1 2.4.3 2.4.4 2.5.1 2.5.2 2.5.3 2.6.1 2.7.1 2.8.1 2.8.2 2.8.3 2.8.4
2.8.5.1
"""
"""Those of sections 1 and 2."""


def test_every_requirement_is_tested_or_named_as_none_of_a_provider() -> None:
    """No number of the specification's sections 1 and 2 is left out."""
    tested = {
        found[1].replace("_", ".")
        for name in globals()
        for found in re.finditer(r"_((?:1|2)(?:_\d+)+)(?=_)", name)
    }
    named = set(re.findall(r"\b[12](?:\.\d+)+\b", __doc__ or ""))
    assert tested | named == set(REQUIREMENTS.split())
    assert not tested & named


def test_1_1_2_1_api_accepts_the_provider(client: OpenFeatureClient) -> None:
    """A client asks it."""
    assert client.get_boolean_value(RANKING, False) is True


def test_1_1_2_2_and_2_8_5_1_needs_no_initialize_and_is_ready_from_registration(
    provider: ResilienceProvider,
) -> None:
    """No call is answered with the default because the provider is not ready yet."""
    assert not hasattr(provider, "initialize")
    heard = threading.Event()
    api.add_handler(ProviderEvent.PROVIDER_READY, lambda _: heard.set())
    heard.clear()
    threads = threading.active_count()
    try:
        api.set_provider(provider, "mine")
        client = api.get_client("mine")
        assert client.get_provider_status() is ProviderStatus.READY
        assert client.get_boolean_details(RANKING, False).error_code is None
        assert heard.wait(5)
        assert threading.active_count() <= threads + 1  # the one that runs handlers
    finally:
        api.shutdown()


def test_1_1_2_3_and_2_5_1_is_shut_down_when_replaced(
    provider: ResilienceProvider, client: OpenFeatureClient, flags: Flags
) -> None:
    """Another one takes its place, and its own end disturbs nothing."""
    api.set_provider(ResilienceProvider(flags))
    wait_until(lambda: not hasattr(provider, "_on_emit"), 5, "the old one is detached")
    assert client.get_boolean_value(RANKING, False) is True


def test_1_1_2_4_waiting_for_it_ends_at_once(provider: ResilienceProvider) -> None:
    """Both ways to set it lead to a provider that is ready."""
    api.set_provider_and_wait(provider, "waited")
    assert api.get_client("waited").get_provider_status() is ProviderStatus.READY
    api.shutdown()


def test_1_1_3_and_2_4_3_serves_several_domains(provider: ResilienceProvider) -> None:
    """It is not of one domain: one object may serve all."""
    for domain in ("a", "b"):
        api.set_provider(provider, domain)
    found = [api.get_client(domain).get_boolean_value(RANKING, False) for domain in ("a", "b")]
    api.shutdown()
    assert found == [True, True]


def test_1_1_5_and_2_1_1_has_a_name(client: OpenFeatureClient) -> None:
    """The name is a string that tells which implementation it is."""
    assert client.provider.get_metadata().name == "celery-resilience"
    assert api.get_provider_metadata().name == "celery-resilience"


@pytest.mark.parametrize("kind", KINDS)
def test_1_3_1_1_and_1_3_3_1_each_kind_of_value_can_be_asked_for(
    client: OpenFeatureClient, kind: str
) -> None:
    """With context and options, or without, and always a value of that kind."""
    ask = getattr(client, f"get_{kind}_value")
    context, options = EvaluationContext("user-7", {"plan": "gold"}), FlagEvaluationOptions()
    for found in (ask(RANKING, KINDS[kind]), ask(RANKING, KINDS[kind], context, options)):
        assert type(found) is type(KINDS[kind])


@pytest.mark.parametrize("kind", ["string", "integer", "float"])
def test_1_3_4_and_2_2_7_and_2_3_3_other_kinds_are_a_mismatch_with_the_default(
    client: OpenFeatureClient, provider: ResilienceProvider, kind: str
) -> None:
    """A feature is a boolean or an object; the error says which feature it is."""
    found = getattr(client, f"get_{kind}_details")(RANKING, KINDS[kind])
    assert found.value == KINDS[kind]
    assert (found.reason, found.error_code) == (Reason.ERROR, ErrorCode.TYPE_MISMATCH)
    assert RANKING in found.error_message
    missing = resolve(provider, kind, "serach")
    assert (missing.value, missing.error_code) == (KINDS[kind], ErrorCode.FLAG_NOT_FOUND)


@pytest.mark.parametrize("kind", KINDS)
def test_1_4_1_1_and_1_4_5_details_bear_the_key(client: OpenFeatureClient, kind: str) -> None:
    """Details of each kind can be asked for, whatever became of the flag."""
    for key in (RANKING, "serach"):
        assert getattr(client, f"get_{kind}_details")(key, KINDS[kind]).flag_key == key


def test_1_4_3_and_2_2_3_value_is_whether_the_feature_is_on(
    flags: Flags, client: OpenFeatureClient, provider: ResilienceProvider
) -> None:
    """On, off, and on again."""
    for state, on in (("off", False), ("on", True)):
        flags.order(RANKING, state, seconds=60, **WHO)  # type: ignore[arg-type]
        assert client.get_boolean_details(RANKING, not on).value is on
        assert resolve(provider, "boolean", RANKING).value is on
        assert resolve(provider, "object", RANKING).value["enabled"] is on


@pytest.mark.parametrize("kind", ["boolean", "object"])
def test_1_4_6_and_2_2_4_variant_is_on_or_off(
    flags: Flags, client: OpenFeatureClient, provider: ResilienceProvider, kind: str
) -> None:
    """For both kinds."""
    flags.order("beta", "on", seconds=60, **WHO)
    shed(flags, RANKING)
    for key, variant in (("beta", "on"), (RANKING, "off")):
        assert getattr(client, f"get_{kind}_details")(key, KINDS[kind]).variant == variant
        assert resolve(provider, kind, key).variant == variant


@pytest.mark.parametrize("kind", ["boolean", "object"])
def test_1_4_7_and_2_2_5_reason_is_static_until_somebody_decides(
    flags: Flags, client: OpenFeatureClient, provider: ResilienceProvider, kind: str
) -> None:
    """Then it is the source of the decision, never DISABLED."""
    assert getattr(client, f"get_{kind}_details")(RANKING, KINDS[kind]).reason == "STATIC"
    assert resolve(provider, kind, "beta").reason == "STATIC"
    flags.order(RANKING, "on", seconds=60, **WHO)
    assert getattr(client, f"get_{kind}_details")(RANKING, KINDS[kind]).reason == "ORDER"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["serach", "", "Search.ranking", ["search.ranking"], None, 7])
def test_1_4_8_and_1_4_9_and_1_4_13_undeclared_name_is_not_found(
    client: OpenFeatureClient, kind: str, key: object
) -> None:
    """It has the default, the reason ERROR, and a message; whatever was asked for."""
    found = getattr(client, f"get_{kind}_details")(key, KINDS[kind])
    assert found.value == KINDS[kind]
    assert (found.reason, found.error_code) == (Reason.ERROR, ErrorCode.FLAG_NOT_FOUND)
    assert repr(key) in found.error_message
    assert found.variant is None


def test_1_4_10_and_1_4_11_nothing_is_raised_or_logged(
    client: OpenFeatureClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither for what is declared nor for what is not."""
    with caplog.at_level(logging.DEBUG):
        for kind, default in KINDS.items():
            for key in (RANKING, "serach"):
                getattr(client, f"get_{kind}_value")(key, default)
    assert not caplog.records


def test_1_4_12_async_answers_are_the_same(flags: Flags, client: OpenFeatureClient) -> None:
    """Of each kind, for a feature that is shed and for one that is not declared."""
    shed(flags, RANKING)

    async def ask(kind: str, key: str) -> FlagEvaluationDetails[Any]:
        ask = getattr(client, f"get_{kind}_details_async")
        found: FlagEvaluationDetails[Any] = await ask(key, KINDS[kind])
        return found

    for kind, default in KINDS.items():
        for key in (RANKING, "serach"):
            plain = getattr(client, f"get_{kind}_details")(key, default)
            assert asyncio.run(ask(kind, key)) == plain


@pytest.mark.parametrize("kind", ["boolean", "object"])
def test_1_4_14_and_2_2_9_and_2_2_10_metadata_is_passed_on_and_flat(
    flags: Flags, client: OpenFeatureClient, provider: ResilienceProvider, kind: str
) -> None:
    """Keys are strings; values are booleans, strings and numbers, never null."""
    flags.order(RANKING, "off", seconds=60, **WHO)
    shed(flags, "search.spelling")
    for key in (RANKING, "search.spelling", "beta"):
        told = resolve(provider, kind, key).flag_metadata
        assert getattr(client, f"get_{kind}_details")(key, KINDS[kind]).flag_metadata == told
        assert {"level", "source", "reason", "version", "flagSetId"} <= set(told)
        assert all(isinstance(one, bool | str | int | float) for one in told.values())
    assert not client.get_boolean_details("serach", True).flag_metadata


def test_1_4_15_1_metadata_is_immutable(client: OpenFeatureClient) -> None:
    """A hook that writes into it changes no other call's."""
    told: Any = client.get_boolean_details(RANKING, True).flag_metadata
    with pytest.raises(TypeError):
        told["level"] = 4


def test_1_6_1_and_1_7_6_and_2_5_2_shutdown_ends_it(
    provider: ResilienceProvider, client: OpenFeatureClient
) -> None:
    """The SDK asks it no more, and it may be set again."""
    api.shutdown()
    assert client.get_boolean_details(RANKING, False).reason == "DEFAULT"  # nobody is asked
    api.set_provider(provider)
    assert client.get_boolean_value(RANKING, False) is True


def test_1_7_1_and_1_7_3_status_is_ready(client: OpenFeatureClient) -> None:
    """As soon as it is set, without an event of its own."""
    assert client.get_provider_status() is ProviderStatus.READY


@pytest.mark.parametrize("kind", KINDS)
def test_2_2_1_and_2_2_2_1_and_2_2_8_1_resolves_each_kind(kind: str) -> None:
    """Plain and async, by the parameters that the interface names, into generic details."""
    for name in (f"resolve_{kind}_details", f"resolve_{kind}_details_async"):
        method = getattr(ResilienceProvider, name)
        theirs = inspect.signature(getattr(AbstractProvider, name)).parameters
        ours = inspect.signature(method).parameters
        assert list(ours) == list(theirs)
        assert ours["evaluation_context"].default is None
        assert inspect.iscoroutinefunction(method) == name.endswith("_async")
    returned = inspect.signature(ResilienceProvider.resolve_boolean_details).return_annotation
    assert get_origin(returned) is FlagResolutionDetails


@pytest.mark.parametrize("kind", ["boolean", "object"])
def test_2_2_6_and_2_3_2_normal_execution_has_no_error(
    flags: Flags, provider: ResilienceProvider, kind: str
) -> None:
    """Whether the feature is on or shed."""
    shed(flags, RANKING)
    for key in (RANKING, "search.spelling"):
        found = resolve(provider, kind, key)
        assert (found.error_code, found.error_message) == (None, None)


def test_2_3_1_brings_no_hooks(client: OpenFeatureClient) -> None:
    """The mechanism is there, and hooks of others run."""
    assert client.provider.get_provider_hooks() == []
    seen = Seen()
    client.add_hooks([seen])
    client.get_boolean_value(RANKING, True)
    assert [one.flag_key for one, _ in seen.calls] == [RANKING]


def test_2_4_1_ignores_the_context(client: OpenFeatureClient) -> None:
    """Whoever is served, the fleet sheds the same; a targeting key is not needed."""
    api.set_evaluation_context(EvaluationContext("everybody"))
    for context in (None, EvaluationContext(), EvaluationContext("user-7", {"plan": "gold"})):
        assert client.get_boolean_details(RANKING, False, context).reason == "STATIC"


def test_2_5_3_shutdown_is_idempotent(provider: ResilienceProvider) -> None:
    """Before it was set, and as often as one likes."""
    for _ in range(3):
        provider.shutdown()
        provider.detach()
    assert resolve(provider, "boolean", RANKING).value is True


def test_2_7_1_tracking_is_accepted_and_ignored(client: OpenFeatureClient, flags: Flags) -> None:
    """An app that tracks events can use the provider, which keeps nothing of them."""
    before = flags.document

    client.track("bought", EvaluationContext("user-7"))

    assert flags.document == before


def test_2_8_1_emits_nothing_as_its_status_never_changes(
    provider: ResilienceProvider, flags: Flags
) -> None:
    """Not on orders, and not when the store is lost."""
    emitted: list[object] = []
    provider.attach(lambda *event: emitted.append(event))
    flags.order(RANKING, "off", seconds=60, **WHO)
    flags._pulse._go_alone()  # noqa: SLF001 - as if the store had not answered
    resolve(provider, "boolean", RANKING)
    assert emitted == []
