"""The provider for OpenFeature, beyond its requirements: why a flag is off, and telemetry."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import (
    FlagEvaluationOptions,
)
from openfeature.provider import ProviderStatus
from openfeature.telemetry import TelemetryAttribute, create_evaluation_event

from resilience.clock import SystemClock
from resilience.flags import Flags
from resilience.flags.openfeature import ResilienceProvider
from resilience.levels import Level
from resilience.testing.waiting import wait_until
from tests.conformance.openfeature_flags import (
    KINDS,
    RANKING,
    WHO,
    Seen,
    client,
    flags,
    flags_at,
    plan_trial,
    provider,
    shed,
)
from tests.unit.black_hole import black_hole

__all__ = ["client", "flags", "provider"]


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


# Appendix D


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
