"""The page on adopting an app lists what the code sets, no more and no less."""

import re
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu.transport import pyamqp

from resilience.broker.redis import SafeTransport
from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.defaults import (
    RABBITMQ_DEFAULTS,
    safe_defaults,
    safe_result_options,
    safe_transport_options,
)

PAGE = Path(__file__).parents[2] / "docs" / "adopting.md"
NAMED = re.compile(r"^\| `([a-z_]+)(?:\[\"([a-z_]+)\"\])?` \|(.*)\|$", re.MULTILINE)


def rows(title: str) -> dict[str, list[str]]:
    """Return the rows of the section *title*, by setting or key, without their reasons."""
    section = PAGE.read_text().split(f"### {title}\n")[1].split("\n#")[0]
    return {
        key or name: [cell.strip().strip("`") for cell in cells.split(" | ")][:-1]
        for name, key, cells in NAMED.findall(section)
    }


def shown(values: dict[str, Any]) -> dict[str, list[str]]:
    """Return settings as the page shows them: Celery's value and ours."""
    return {name: [repr(DEFAULTS.get(name)), repr(value)] for name, value in values.items()}


def test_page_lists_every_setting() -> None:
    """Each default that adoption sets is on the page with Celery's value and ours."""
    listed = {
        **rows("Any broker"),
        **rows("Any result backend"),
        **rows("Redis as result backend"),
    }
    retry = listed.pop("retry_policy")

    assert listed == shown(safe_defaults(Settings()))
    assert retry == ["", repr(safe_result_options()["retry_policy"])]


@pytest.mark.parametrize(
    ("title", "transport", "settings"),
    [
        pytest.param("Redis or Valkey as broker", SafeTransport, {}, id="redis"),
        pytest.param("RabbitMQ as broker", pyamqp.Transport, RABBITMQ_DEFAULTS, id="rabbitmq"),
    ],
)
def test_page_lists_every_option_of_a_broker(
    title: str, transport: type[Any], settings: dict[str, Any]
) -> None:
    """Each option that depends on the broker is in the section of that broker."""
    options = safe_transport_options(transport, 0, Settings())
    keys = {name: [repr(value)] for name, value in options.items()}

    assert rows(title) == {**keys, **shown(settings)}


def test_each_setting_can_be_taken_back() -> None:
    """Celery's value, set by the app, is the one that holds."""
    names = {*safe_defaults(Settings()), *RABBITMQ_DEFAULTS}
    for url in ("redis://127.0.0.1:1", "amqp://127.0.0.1:1"):
        app: Celery[Any] = Celery("people", broker=url, set_as_current=False)
        Resilience(app, dependencies=[Dependency("payments")])
        app.conf.update({name: DEFAULTS.get(name) for name in names})

        assert all(getattr(app.conf, name) == DEFAULTS.get(name) for name in names)


def test_connection_is_retried_at_start_as_later() -> None:
    """An app that wants no second attempt gets none at the start of a worker either."""
    app: Celery[Any] = Celery("people", set_as_current=False)
    Resilience(app, dependencies=[Dependency("payments")])

    assert app.conf.broker_connection_retry_on_startup is True
    app.conf.broker_connection_retry = False
    assert app.conf.broker_connection_retry_on_startup is False
    app.conf.broker_connection_retry_on_startup = True
    assert app.conf.broker_connection_retry_on_startup is True
