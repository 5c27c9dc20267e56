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
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_origin
from uuid import uuid4

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
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.provider import AbstractProvider, ProviderStatus
from openfeature.telemetry import TelemetryAttribute, create_evaluation_event

from resilience.clock import SystemClock
from resilience.flags import Feature, Features, Flags
from resilience.flags.document import Document, Shed, TrialPlan
from resilience.flags.openfeature import ResilienceProvider
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.black_hole import black_hole

FEATURES = (
    Feature("search.ranking", level=Level.REDUCED),
    Feature("search.spelling", level=Level.STALE),
    Feature("beta", level=Level.REDUCED, default=False),
)
WHO = {"actor": "ann", "reason": "too slow"}
RANKING = "search.ranking"
REQUIREMENTS = """
1.1.1 1.1.2.1 1.1.2.2 1.1.2.3 1.1.2.4 1.1.3 1.1.4 1.1.5 1.1.6 1.1.7 1.1.8.1 1.2.1 1.2.2 1.3.1.1
1.3.2.1 1.3.3.1 1.3.4 1.4.1.1 1.4.2.1 1.4.3 1.4.4.1 1.4.5 1.4.6 1.4.7 1.4.8 1.4.9 1.4.10 1.4.11
1.4.12 1.4.13 1.4.14 1.4.15.1 1.5.1 1.6.1 1.6.2 1.7.1 1.7.2.1 1.7.3 1.7.4 1.7.5 1.7.6 1.8.1
1.8.2 1.8.3 1.8.4 2.1.1 2.2.1 2.2.2.1 2.2.3 2.2.4 2.2.5 2.2.6 2.2.7 2.2.8.1 2.2.9 2.2.10 2.3.1
2.3.2 2.3.3 2.4.1 2.4.2.1 2.4.3 2.4.4 2.5.1 2.5.2 2.5.3 2.6.1 2.7.1 2.8.1 2.8.2 2.8.3 2.8.4
2.8.5.1
"""
"""Those of sections 1 and 2."""


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


# What requirements do not say


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


def test_library_does_not_import_the_sdk_unless_it_is_used() -> None:
    """Who does not use OpenFeature need not have it."""
    code = "import sys, resilience, resilience.flags.intent; print('openfeature' in sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", code])  # noqa: S603 - as above
    assert found == b"False\n"


def by_order(flags: Flags) -> None:
    """Shed by a person's order."""
    flags.order(RANKING, "off", seconds=60, **WHO)


def by_brownout(flags: Flags) -> None:
    """Shed by a brownout."""
    flags.brownout(Level.REDUCED, seconds=60, **WHO)


def by_controller(flags: Flags) -> None:
    """Shed by the controller."""
    shed(flags, RANKING)


@pytest.mark.parametrize(
    ("how", "reason", "rule"),
    [
        (by_order, "ORDER", "too slow"),
        (by_brownout, "BROWNOUT", "too slow"),
        (by_controller, "CONTROLLER", "open:ranking"),
    ],
)
def test_shed_feature_has_a_reason_of_our_own_and_says_why(
    flags: Flags, client: OpenFeatureClient, how: Callable[[Flags], None], reason: str, rule: str
) -> None:
    """It is neither DISABLED nor missing, on which a client of several would ask the next one."""
    how(flags)
    found = client.get_boolean_details(RANKING, True)
    assert (found.value, found.variant, found.reason) == (False, "off", reason)
    assert found.error_code is None
    told = found.flag_metadata
    assert (told["level"], told["source"], told["reason"]) == (2, reason.lower(), rule)
    assert ("until" in told) == (reason != "CONTROLLER")
    assert told["version"] == str(flags.version)
    assert str(told["flagSetId"]).endswith(":flags")


def test_trial_sheds_nothing_for_clients(flags: Flags, client: OpenFeatureClient) -> None:
    """Nobody knows what a client does with an answer, so a trial cannot measure it."""
    plan_trial(flags, RANKING)
    found = [client.get_boolean_details(RANKING, True) for _ in range(60)]
    assert {(one.value, one.reason) for one in found} == {(True, "STATIC")}


def test_object_says_how_good_answers_are_and_why(flags: Flags, client: OpenFeatureClient) -> None:
    """It can be written as JSON."""
    order = flags.order(RANKING, "off", seconds=60, **WHO)
    found: Any = client.get_object_value(RANKING, {})
    assert json.loads(json.dumps(found)) == {
        "feature": RANKING,
        "enabled": False,
        "level": 2,
        "level_name": "REDUCED",
        "source": "order",
        "reason": "too slow",
        "since": order.at,
        "until": order.until,
        "version": order.version,
    }
    healthy: Any = client.get_object_value("search.spelling", {})
    assert (healthy["enabled"], healthy["level_name"], healthy["until"]) == (True, "FULL", None)


def test_value_changes_when_an_order_ends_by_itself(
    flags: Flags, client: OpenFeatureClient
) -> None:
    """What was answered before is not what is answered after: value, reason and metadata."""
    shed(flags, RANKING)
    flags.order(RANKING, "off", seconds=0.3, **WHO)
    assert client.get_boolean_details(RANKING, True).reason == "ORDER"
    wait_until(
        lambda: client.get_boolean_details(RANKING, True).reason == "CONTROLLER", 2, "it ended"
    )
    assert client.get_boolean_details(RANKING, True).flag_metadata["reason"] == "open:ranking"


def test_default_value_of_a_call_never_hides_a_decision(
    flags: Flags, client: OpenFeatureClient
) -> None:
    """The default of the call is for flags that are not declared."""
    assert client.get_boolean_value("beta", True) is False
    flags.order("beta", "on", seconds=60, **WHO)
    assert client.get_boolean_value("beta", False) is True


def test_forked_child_is_ready_and_hears_of_a_flip(flags: Flags, client: OpenFeatureClient) -> None:
    """The SDK's threads are not needed, which do not live on in a child."""
    assert client.get_boolean_value(RANKING, True) is True
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        on = client.get_boolean_value(RANKING, True)
        os.write(writing, b"on\n" if on else b"off\n")
        began = SystemClock.monotonic()
        while client.get_boolean_value(RANKING, True) and SystemClock.monotonic() - began < 10:
            threading.Event().wait(0.01)
        api.set_provider(ResilienceProvider(flags), "another")
        again = api.get_client("another").get_boolean_details(RANKING, True)
        os.write(writing, f"{again.reason} {client.get_provider_status().value}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.readline() == b"on\n"
        flags.order(RANKING, "off", seconds=60, **WHO)
        began = SystemClock.monotonic()
        assert told.readline() == b"ORDER READY\n"
        assert SystemClock.monotonic() - began < 1.0
    os.waitpid(child, 0)


def test_lost_store_leaves_the_provider_ready_with_what_was_known(
    flags: Flags, client: OpenFeatureClient
) -> None:
    """As `Flags`: no error, no waiting."""
    flags.order(RANKING, "off", seconds=60, **WHO)
    flags._pulse._go_alone()  # noqa: SLF001 - as if the store had not answered
    found = client.get_boolean_details(RANKING, True)
    assert (found.value, found.reason) == (False, "ORDER")
    assert client.get_provider_status() is ProviderStatus.READY


# The specification


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


@pytest.mark.parametrize("kind", KINDS)
def test_1_4_12_async_does_not_block_the_event_loop_while_the_store_hangs(kind: str) -> None:
    """Other coroutines go on, and the answer is the declared one."""
    gaps: list[float] = []
    ticked = asyncio.Event()

    async def tick() -> None:
        last = SystemClock.monotonic()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(SystemClock.monotonic() - last)
            last = SystemClock.monotonic()
            ticked.set()

    async def ask(client: OpenFeatureClient) -> Any:  # noqa: ANN401 - by kind
        ticking = asyncio.create_task(tick())
        await ticked.wait()
        found = await getattr(client, f"get_{kind}_value_async")("beta", KINDS[kind])
        ticked.clear()
        await ticked.wait()
        ticking.cancel()
        return found

    with black_hole() as url, flags_at(url) as flags:
        api.set_provider(ResilienceProvider(flags), "hung")
        found = asyncio.run(ask(api.get_client("hung")))
    api.shutdown()
    assert max(gaps) < 0.5
    if kind == "object":
        assert found["enabled"] is False
    else:
        assert found == (False if kind == "boolean" else KINDS[kind])


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


# Appendix D


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


SDK_NAMES = {
    "feature_flag.provider_name": "feature_flag.provider.name",
    "feature_flag.evaluation.reason": "feature_flag.result.reason",
    "feature_flag.variant": "feature_flag.result.variant",
    "feature_flag.evaluation.error.message": "error.message",
}
"""Names that the SDK's helper still uses, and those of today; see the history in Appendix D."""


def telemetry(client: OpenFeatureClient, key: str) -> dict[str, Any]:
    """Return the attributes that the SDK's helper makes of one evaluation, by today's names."""
    seen = Seen()
    options = FlagEvaluationOptions(hooks=[seen])
    client.get_boolean_value(key, True, EvaluationContext("user-7"), options)
    [(context, details)] = seen.calls
    event = create_evaluation_event(context, details)
    assert event.name == "feature_flag.evaluation"
    assert set(event.attributes) <= set(TelemetryAttribute)
    return {SDK_NAMES.get(str(name), str(name)): one for name, one in event.attributes.items()}


def test_appendix_d_evaluation_makes_the_attributes_of_opentelemetry(
    flags: Flags, client: OpenFeatureClient
) -> None:
    """Each from the field, or the key of the metadata, that the appendix names; all as strings."""
    shed(flags, RANKING)
    assert telemetry(client, RANKING) == {
        "feature_flag.key": RANKING,
        "feature_flag.provider.name": "celery-resilience",
        "feature_flag.result.reason": "controller",
        "feature_flag.result.variant": "off",
        "feature_flag.version": str(flags.version),
        "feature_flag.set.id": flags.set_id,
        "feature_flag.context.id": "user-7",
    }


def test_appendix_d_error_has_its_type(client: OpenFeatureClient) -> None:
    """In lower case, with the message."""
    found = telemetry(client, "serach")
    assert found["error.type"] == "flag_not_found"
    assert found["feature_flag.result.reason"] == "error"
    assert found["error.message"] == "no feature 'serach' is declared"
