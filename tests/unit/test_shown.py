"""What anybody may see of texts of others: no secrets, and nothing that steers or forges."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import uuid4

import click
import pytest
from celery import Celery, chain
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import resilience
from resilience import Dependency, FireAndForgetTask, Resilience, Settings
from resilience.cli import DeclarationError
from resilience.cli import resilience as command
from resilience.cli.rows import print_rows
from resilience.cli.words import say, say_json
from resilience.errors import AllFallbacksFailedError, ConfigurationError
from resilience.events import Event
from resilience.events.lines import LogLines, as_json, logfmt
from resilience.events.plain import plain_fields
from resilience.fallback.progress import reason_of
from resilience.ledger.engines import place_of, read_url
from resilience.ledger.redaction import redacted
from resilience.monitor.celery_events import celery_event
from resilience.monitor.flower.state import noted
from resilience.monitor.flower.timeline import plain as in_markdown
from resilience.monitor.rows import last_error
from resilience.store.clients import Clients
from resilience.tasks.kept import job_of
from resilience.tasks.serialization import must_encode
from resilience.text import REDACT, get_logger, hide, hide_in_text, hide_names, is_secret, shown
from tests.every_event import EVERY, make

QUOTED = "hunter2\"'ä&x"
BARE = "hunter2-x"
CODED = [
    "postgresql://h/db?password={}",
    "GET https://h/x?a=1&access_token={}&b=2",
    "postgresql://ann:{}@h/db",
    "redis://:a/{}@h:1/0",
    "Password: {}",
    "'X-Api-Key': '{}'",
    '{{"apiKey": "{}"}}',
    '{{\\"client_secret\\": \\"{}\\"}}',
    "Authorization: Bearer {}",
    "('proxy-authorization', 'Basic {}')",
    "[(b'authorization', b'{}')]",
    "Set-Cookie: a=b; sid={}",
    "refused: bearer {}",
    "password%3D{}%26a%3D1",
    "%22token%22%3A%22{}%22",
    "d['PASSWD'] = '{}",
    "pwd => {}",
    "secrets={{'a': '{}'}}",
]
STEERING = "\x1b[2J\r\u202e\u2066\x07\x9b1m\x00"


@pytest.mark.parametrize("text", CODED)
def test_secret_is_hidden_however_it_is_written(text: str) -> None:
    """Also if a length limit cut it before, where a name says that it is one."""
    text = text.format(BARE)

    named = "://" not in text and "refused" not in text
    for cut in range(text.index(BARE) + 4 if named else len(text), len(text) + 1):
        assert "hunt" not in hide_in_text(text[:cut])
    assert hide_in_text(hide_in_text(text)) == hide_in_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "circuit of payments is open, retry after 3.2 s",
        "the password is wrong: try again",
        "https://host:80/path?page=2",
        "KeyError: 'user'",
        "Basic operations fail",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    """An operator needs it."""
    assert hide_in_text(text) == text


@pytest.mark.parametrize(
    "name", ["Password", "db_password", "X-API-Key", "apiKey", "access_token", "AUTHORIZATION"]
)
def test_name_is_secret_in_any_case_and_at_the_end_of_a_longer_one(name: str) -> None:
    """As people write it in headers, settings and code."""
    assert is_secret(name)
    assert not is_secret(f"{name}_id_of_row")


def test_page_of_settings_names_every_name_that_is_hidden() -> None:
    """Nobody needs to read code to know what is hidden."""
    page = Path("docs/settings.md").read_text(encoding="utf-8")

    assert f"`{','.join(sorted(REDACT))}`" in page


@pytest.mark.parametrize(
    "again", ["://", "://a:", "password=", "password", '\\"', "token[(", "?a&", "b'", "bearer "]
)
def test_hiding_takes_no_time_that_grows_with_the_square(again: str) -> None:
    """No text holds a worker up: if it did, this would take minutes, and be stopped."""
    assert hide_in_text(again * 20_000 + " token=hunter2").endswith("***")


MESSAGE: dict[str, Any] = {
    "args": [QUOTED, "ann"],
    "names": ["Pass_Word", "user"],
    "kwargs": {"headers": [["Authorization", "Bearer abcdef"]], "url": f"redis://a:{BARE}@h"},
    "embed": {
        "chain": [
            {"task": "known", "args": ["s3cr3t-chained"], "kwargs": {}},
            {"task": "unknown", "args": ["s3cr3t-foreign"], "kwargs": {}},
            {"task": "harmless", "args": ["order"], "kwargs": {}},
        ]
    },
    "following": {"known": ["result", "api_key"], "harmless": ["result", "order_id"]},
}


def test_letter_shows_no_secret_and_no_copy_of_one() -> None:
    """Its own arguments, those of tasks that follow, and what errors quote of them, also cut."""
    copies = [QUOTED, repr(QUOTED), json.dumps(QUOTED), json.dumps(json.dumps(QUOTED))]
    copies += [quote(QUOTED), quote(QUOTED, safe=""), quote_plus(QUOTED), quote(QUOTED).lower()]
    copies += [f"…{'x' * 90} {QUOTED}"[:-3], f"{QUOTED[4:]} in the traceback"]
    errors = [{"type": "ValueError", "text": f"bad {copy}"} for copy in copies[:-1]]
    errors += [{"type": "ValueError", "text": copies[-1]}]

    message, seen = redacted(MESSAGE, errors, REDACT | {"pass_word"})

    text = json.dumps([message, seen])
    for part in ("hunter", "er2", "abcdef", "s3cr3t", BARE):
        assert part not in text, part
    assert message["args"] == ["***", "ann"]
    assert message["embed"]["chain"][2]["args"] == ["order"]


def test_letter_of_a_chain_knows_what_its_tasks_call_their_arguments(tmp_path: Path) -> None:
    """So that only those are hidden that must be."""
    app: Any = Celery("shown", broker="memory://", set_as_current=False)
    settings = Settings(store_url="redis://localhost:1/0", ledger_url=f"sqlite:///{tmp_path}/l")
    adopted = Resilience(app, dependencies=[Dependency("mail")], settings=settings)

    @app.task(name="send", base=FireAndForgetTask, dependency="mail", shared=False)
    def send(result: object, order: str, token: str) -> None: ...

    after = chain(send.s("order-1", "t0ken-1"), send.si(1, "order-2", "t0ken-2"))
    options = {"task_id": uuid4().hex, "chain": list(after.tasks)}
    job = job_of(send, [1, "a", "t0ken-0"], {}, options, queue="mail", ledger={}, age_seconds=0.0)
    message, _ = redacted(json.loads(job.message), [], REDACT)

    text = json.dumps(message)
    assert "t0ken" not in text
    assert {"order-1", "order-2"} <= set(re.findall("order-[12]", text))
    adopted.store.client.close()
    app.close()


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_event_leaves_the_process_without_secrets_and_forges_nothing(kind: type[Event]) -> None:
    """As a line of either form, and as an event of Celery that Flower keeps."""
    event = make(kind, f"password=hunter2 id=x actor=root {STEERING}")
    long = make(kind, f"{'x' * 950} password={'hunter2' * 20} {STEERING}")
    lines = [_line(event, form) for form in ("logfmt", "json")]
    kept = celery_event(event) or {}

    for made in (*lines, json.dumps(kept), json.dumps(noted(kept)), json.dumps(plain_fields(long))):
        assert "hunter" not in made
    for line in lines:
        assert line.isprintable()
    assert " actor=root" not in re.sub(r'"(?:\\.|[^"\\])*"', "", lines[0])
    json.loads(lines[1])


def _line(event: Event, form: Any) -> str:  # noqa: ANN401 - a literal
    stream = io.StringIO()
    logger, handler = logging.getLogger("resilience"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        LogLines(form)(event)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    return stream.getvalue().rstrip("\n")


def test_log_line_shows_no_secret_and_is_one_line() -> None:
    """Whatever a logger of ours is given, with a traceback or without."""
    stream = io.StringIO()
    logger, handler = get_logger("resilience.shown"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        int(f"password=hunter2 {STEERING}")
    except ValueError:
        logger.exception("cannot reach %s\nforged %s", "redis://:hunter2@h/0", STEERING)

    first, *trace = stream.getvalue().splitlines()
    assert "hunter2" not in stream.getvalue()
    assert first.startswith("cannot reach redis://***@h/0\\nforged ")
    assert all(line.isprintable() for line in (first, *trace))
    assert trace[-1].startswith("ValueError: ")


def test_every_logger_of_the_library_shows_plain_text() -> None:
    """A new module must not forget it."""
    package = Path(resilience.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    forgot = [str(path) for path, text in sources.items() if "= logging.getLogger(" in text]

    assert forgot == [str(package / "text.py")]


def test_every_command_prints_through_one_place() -> None:
    """What escapes is `say` and `say_json`; a manifest is written for a program."""
    package = Path(resilience.__file__).parent / "cli"
    bare = {
        path.name: [line.strip() for line in path.read_text().splitlines() if "click.echo(" in line]
        for path in package.glob("*.py")
    }

    assert {name: lines for name, lines in bare.items() if lines} == {
        "__init__.py": ['click.echo(f"Error: the app cannot be loaded: {shown(error)}", err=True)'],
        "topology.py": ["click.echo(write[kind](), nl=False)"],
        "words.py": ["click.echo(json.dumps(hide(value), indent=indent))"],
    }


EVIL = f"password=hunter2 {STEERING}"


def _printed(print_it: Callable[[], None]) -> str:
    @click.command()
    def one() -> None:
        print_it()

    return CliRunner().invoke(one, catch_exceptions=False).output


@pytest.mark.parametrize(
    "print_it",
    [
        lambda: say(EVIL),
        lambda: say_json({"a": EVIL, "Token": "hunter2"}),
        lambda: print_rows([{"name": EVIL}], ["name"], as_json=False),
        lambda: print_rows([{"name": EVIL}], ["name"], as_json=True),
    ],
    ids=["say", "json", "table", "rows"],
)
def test_command_prints_plain_text(print_it: Callable[[], None]) -> None:
    """Nothing steers the terminal, nothing is shown that must not be."""
    printed = _printed(print_it)

    assert "hunter" not in printed
    assert all(line.isprintable() for line in printed.splitlines())


@pytest.mark.parametrize(
    "error",
    [ConfigurationError(EVIL), click.UsageError(EVIL), click.ClickException(EVIL)],
    ids=repr,
)
def test_error_of_a_command_is_plain_text(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever raises it."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(type(command), "get_command", lambda *_: failing)
    printed = CliRunner().invoke(command, ["status"])

    assert printed.exit_code in {1, DeclarationError.exit_code}
    assert "hunter" not in printed.output
    assert "password=***" in printed.output
    assert all(line.isprintable() for line in printed.output.splitlines())


def _of_store() -> str:
    with pytest.raises(ConfigurationError) as caught:
        Clients("redis://h/db?password=hunter2&nope=1", key="k", timeout_seconds=1.0)
    return str(caught.value)


def _of_arguments() -> str:
    with pytest.raises(ConfigurationError) as caught:
        must_encode({"password": "hunter2", "b": object()}, where="part")
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        _of_store,
        _of_arguments,
        lambda: place_of(read_url("postgresql://ann:hunter2@h/db?password=hunter2")),
        lambda: reason_of(ValueError(EVIL)),
        lambda: str(AllFallbacksFailedError("d", {"call": reason_of(ValueError(EVIL))}, None)),
        lambda: in_markdown(EVIL),
        lambda: json.dumps(hide([{"a": (EVIL,)}, {"Api-Key": "hunter2"}])),
        lambda: last_error(_letter()),
    ],
    ids=["store", "arguments", "ledger", "step", "chain", "post-mortem", "page", "letter"],
)
def test_error_or_view_shows_no_secret(text: Callable[[], str]) -> None:
    """Each place that shows an error, an argument or a URL."""
    assert "hunter" not in text()


def _letter() -> Any:  # noqa: ANN401 - what the function reads of a letter
    return SimpleNamespace(errors=[{"type": "ValueError", "text": "x" * 190 + EVIL}])


@pytest.fixture
def own_name() -> Iterator[str]:
    """A name of the user's own."""
    name = f"name-{uuid4().hex}"
    hide_names([name])
    yield name
    resilience.text._own.discard(name)  # noqa: SLF001 - nothing else forgets it


def test_names_of_the_user_are_hidden_in_all_texts(own_name: str) -> None:
    """Beside the default ones."""
    assert hide_in_text(f"{own_name.upper()}=hunter2") == f"{own_name.upper()}=***"
    assert hide({own_name: "hunter2"}) == {own_name: "***"}


@given(st.text())
def test_shown_text_is_printable_and_value_of_logfmt_is_one_field(text: str) -> None:
    """For any text: no line, no escape, no second field comes of it."""
    assert all(line.isprintable() for line in shown(text).split("\n"))
    line = logfmt({"event": "X", "name": text})
    assert line.isprintable()
    found = re.fullmatch(r'event=X name=("(?:\\.|[^"\\])*"|[^\s"=]*)', line)
    assert found
    assert not found[1].startswith('"') or json.loads(found[1]) == text
    assert as_json(text).isprintable()
