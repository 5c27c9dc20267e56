"""Whatever people, programs and networks hand in is taken, or refused by an error that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from resilience import ConfigurationError, Outcome, PartialResponse, Settings
from resilience.chaos.gameday.plan import read_plan
from resilience.chaos.proving import report
from resilience.chaos.proxy.api import Proxies, parse_json
from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.toxic import ProxyOrder, Toxic
from resilience.cli.prove import prove
from resilience.cli.words import above_zero, duration, duration_in_seconds
from resilience.consistency.position import Position
from resilience.consistency.signing import TokenSigner
from resilience.consistency.token import Token
from resilience.ledger.engines import read_url
from resilience.monitor.flower.actions import Order
from resilience.settings import PREFIX
from resilience.store import Store
from resilience.tasks.positions import token_of_parts
from resilience.text import shown
from tests.unit.desk import Desk

ROOT = Path(__file__).parents[2]
TEXTS = st.text(st.characters(), max_size=40)
"""With control characters, halves of characters, and digits of other scripts."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
NUMBERS = st.sampled_from(
    ["inf", "-inf", "nan", "-1", "0", "1e400", "9" * 5_000, "1_0", "٣", " 7 ", "0x1"]
)
URLS = st.sampled_from(
    [
        "redis://",
        "redis://h:port/0",
        "redis://[::1/0",
        "redis://h:99999/0",
        "sentinel://h",
        "redis+cluster://",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://[",
        "mariadb://h:x/y",
        "unix://",
        "http://h",
    ]
)
FAULTS = JSON.map(json.dumps) | st.just('[{"dependency": "x", "kind": "error", "rate": NaN}]')
VALUES = TEXTS | NUMBERS | URLS | FAULTS


def _bytes(document: Any) -> bytes:  # noqa: ANN401 - JSON
    return json.dumps(document).encode()


def documents(*names: str) -> st.SearchStrategy[Any]:
    """Return documents with fields of these names, of any type, and anything else."""
    field = st.sampled_from([*names, "other"])
    mapping = st.dictionaries(field, JSON, max_size=len(names))
    return mapping | JSON


@given(
    values=st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), VALUES, max_size=4),
    other=TEXTS,
)
@example(values={"faults": "[" * 100_000}, other="")
@example(values={"runtime_directory": "a\0b"}, other="")
@example(values={"redact": ",".join(["x"] * 1000)}, other="STORE_ULR")
def test_settings_are_taken_or_refused(values: dict[str, str], other: str) -> None:
    """A variable of the environment, whatever is in it, ends in no other error than ours."""
    environment = {PREFIX + name.upper(): value for name, value in values.items()}
    environment |= {PREFIX + other: ""} if other else {}

    with suppress(ConfigurationError, ValidationError):
        Settings.from_environment(environment)


@given(url=URLS | TEXTS | st.builds("{}://{}".format, st.sampled_from(["redis", "sqlite"]), TEXTS))
def test_addresses_are_taken_or_refused(url: str) -> None:
    """Neither a store nor a ledger is made of a malformed one."""
    with suppress(ConfigurationError):
        Store(url, namespace="n")
    with suppress(ConfigurationError):
        read_url(url)


@given(text=TEXTS | NUMBERS | NUMBERS.map("{}s".format))
def test_durations_and_rates_are_taken_or_refused(text: str) -> None:
    """What is taken is a finite number of seconds."""
    for read in (duration, duration_in_seconds, above_zero):
        with suppress(click.BadParameter):
            assert 0 <= read(text) < float("inf")


@given(text=TEXTS)
def test_plain_text_steers_no_terminal(text: str) -> None:
    """Whatever was in it."""
    assert all(one.isprintable() or one == "\n" for one in shown(text))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An operator in front of a ledger with a dead letter."""
    made = Desk(tmp_path_factory.mktemp("desk") / "ledger.sqlite3")
    made.bury("one")
    yield made
    made.ledger.close()


WORDS = TEXTS.filter(lambda text: not text.startswith("-")) | NUMBERS
COMMANDS = st.sampled_from(
    [
        ["dead", "list", "--dependency"],
        ["dead", "list", "--each", "--task"],
        ["dead", "list", "--json", "--fingerprint"],
        ["dead", "list", "--older-than"],
        ["dead", "list", "--limit"],
        ["dead", "show"],
        ["dead", "show", "--json"],
        ["dead", "replay", "--dry-run"],
        ["dead", "replay", "--dry-run", "--dependency"],
        ["dead", "discard", "--dry-run", "--task"],
        ["dead", "discard", "--yes", "nobody", "--reason"],
        ["dead", "discard", "--yes", "nobody", "--reason", "x", "--actor"],
        ["flag", "off", "x", "--reason", "x", "--seen"],
        ["ledger"],
        [],
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(command=COMMANDS, word=WORDS)
@example(command=["dead", "list", "--dependency"], word="\udcff")
@example(command=["dead", "show"], word="a\0b")
@example(command=["dead", "list", "--limit"], word="9" * 30)
@example(command=["dead", "discard", "--yes", "nobody", "--reason"], word="\udcff")
def test_filters_of_commands_are_taken_or_refused(
    desk: Desk, command: list[str], word: str
) -> None:
    """A command ends with 0, 1 or 2, and never with a traceback."""
    done = desk.run(*command, word)

    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in {0, 1, 2}


HOP = documents("fallback", "level", "reason", "seconds")
META = documents("level", "reason", "source", "age", "dependency", "hops", "fault")
PARTS = documents("missing", "degraded", "level", "reasons", "ages", "sources", "retry_after")
LEVELS = st.fixed_dictionaries({"level": st.integers(-1, 5)})


@given(
    document=documents("data", "_meta")
    | st.fixed_dictionaries({"data": JSON, "_meta": META | PARTS | LEVELS})
)
@example(document={"data": 1, "_meta": {"level": 0, "hops": 7}})
@example(document={"data": 1, "_meta": {"level": 0, "hops": [{"x": 1}]}})
@example(document={"data": 1, "_meta": {"level": []}})
@example(document={"data": 1, "_meta": None})
def test_answers_on_the_wire_are_taken_or_refused(document: Any) -> None:  # noqa: ANN401 - JSON
    """By the errors that their documentation names."""
    for kind in (Outcome, PartialResponse):
        with suppress(KeyError, ValueError):
            kind.from_json(document)


SIGNER = TokenSigner("a secret of at least sixteen characters")


@given(text=TEXTS | st.builds("{}.{}".format, TEXTS, TEXTS), document=JSON)
@example(text="", document={"positions": {"x": {"a": [1e999, 0]}}})
def test_positions_of_sessions_are_taken_or_refused(text: str, document: Any) -> None:  # noqa: ANN401 - JSON
    """Neither a cookie nor a header of a stranger ends a request."""
    assert SIGNER.read(text, now=0.0) is None
    for kind in (Token, Position):
        with suppress(ValueError):
            kind.from_json(document)


@given(body=st.binary(max_size=60) | documents("name", "listen", "upstream", "toxics").map(_bytes))
@example(body=b"[" * 100_000)
@example(body=b"9" * 5_000)
def test_orders_of_the_proxy_are_taken_or_refused(body: bytes) -> None:
    """By an error that becomes an answer."""
    for kind in (ProxyOrder, Toxic):
        with suppress(ProxyError):
            kind.parse(parse_json(body))
    for path in ("/populate", "/proxies", "/proxies/%ff/toxics/a%00b"):
        with suppress(ProxyError):
            Proxies().answer("POST", path, body)


@given(body=st.binary(max_size=60) | documents("action", "reason", "version", "which").map(_bytes))
@example(body=b"[" * 100_000)
def test_orders_of_the_page_are_taken_or_refused(body: bytes) -> None:
    """By an error that becomes an answer."""
    with suppress(ValidationError):
        Order.model_validate_json(body)


PLAN = ROOT / "tests/integration/gameday_apps/careless.toml"
LINES = st.sampled_from(["nan", "-1", "1e400", "[]", "{}", '"x"', "true", "9" * 5_000])


@given(number=st.integers(0, 40), value=LINES | TEXTS)
@example(number=0, value="[" * 100_000)
def test_plans_of_game_days_are_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, number: int, value: str
) -> None:
    """Whichever line of a good plan somebody spoils."""
    lines = PLAN.read_text().splitlines()
    place = number % len(lines)
    lines[place] = f"{lines[place].partition('=')[0]}= {value}"
    path = tmp_path_factory.getbasetemp() / "plan.toml"
    path.write_text("\n".join(lines), errors="replace")

    with suppress(ConfigurationError):
        read_plan(path)


@given(text=JSON.map(json.dumps) | TEXTS)
@example(text="[" * 100_000)
@example(text="9" * 5_000)
def test_arguments_of_a_proof_are_taken_or_refused(text: str) -> None:
    """What is no list is refused before anything runs."""
    with suppress(click.BadParameter), click.Context(prove) as context:
        [parameter] = [one for one in prove.params if one.name == "args"]
        assert isinstance(parameter.process_value(context, text), list)


@given(text=JSON.map(json.dumps) | TEXTS)
@example(text="[" * 100_000)
def test_unreadable_positions_of_parts_are_lost_ones(text: str) -> None:
    """The primary answers then; the other parts of the response stay."""
    assert token_of_parts(SimpleNamespace(fleet_time=lambda: 1.0), [text]) is not None


@given(text=TEXTS | st.lists(TEXTS).map("|".join))
def test_committed_truth_table_is_taken_or_refused(text: str) -> None:
    """A file that somebody edited is no traceback."""
    with suppress(ValueError):
        report.parse(text)
