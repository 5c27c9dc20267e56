"""Lines of the log: other programs can read them, whatever an event says."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from celery import Celery
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from resilience import Dependency, Level, Resilience, Settings
from resilience.events import AnswerDegraded, Event, FallbacksExhausted, LogLines, StoreLost
from tests.every_event import EVERY, MEASURED, make

HOSTILE = {
    "newlines": "one\ntwo\r\nthree\u2028four\x85five",
    "quotes": 'say "no" \'now\' \\ \\" end\\',
    "equals": 'a=b c="d" event=StoreFound',
    "long": "x" * 100_000,  # five times as long as a line may be
    "escapes": "\x1b[2J\x1b]0;gone\x07\x00\x9b31m\u202eback",
    "surrogate": "\udc80 and é and 日本",
    "markup": "<script>alert(1)</script>",
}


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line as the logfmt packages of Go do: bare words, or texts quoted as in JSON.

    Raises:
        ValueError: It is no logfmt, or names a field twice.
    """
    fields: dict[str, str] = {}
    position = 0
    decoder = json.JSONDecoder()
    while position < len(line):
        found = re.compile(r'([^\s="\x00-\x1f]+)=').match(line, position)
        if found is None:
            msg = f"no name at {position}: {line[position : position + 40]!r}"
            raise ValueError(msg)
        name, position = found[1], found.end()
        if line[position : position + 1] == '"':
            value, position = decoder.raw_decode(line, position)
        else:
            bare = re.compile(r'[^\s="\\\x00-\x1f]+').match(line, position)
            if bare is None:
                msg = f"no value of {name}"
                raise ValueError(msg)
            value, position = bare[0], bare.end()
        if name in fields or line[position : position + 1] not in {"", " "}:
            msg = f"{name} again, or more behind it"
            raise ValueError(msg)
        fields[name] = value
        position += 1
    return fields


def line_of(listener: LogLines, event: Event, caplog: pytest.LogCaptureFixture) -> str:
    """Return the line that *listener* writes of *event*."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="resilience"):
        listener(event)
    [record] = caplog.records
    return record.getMessage()


def test_parser_of_this_test_refuses_what_is_no_logfmt() -> None:
    """Were it not so, the tests below could not fail."""
    for line in ("a=b c", 'a="b', "a= b=c", "a=b a=c", 'a="b"c', "a=b  c=d", "a=b\nc=d"):
        with pytest.raises(ValueError, match=r"."):
            parse_logfmt(line)
    assert parse_logfmt('a=b c="d \\"e\\"" f=1') == {"a": "b", "c": 'd "e"', "f": "1"}


def test_every_event_is_known_here() -> None:
    """Otherwise the tests of all events would leave one out."""
    assert {one.__name__ for one in EVERY} == {one.__name__ for one in Event.__subclasses__()}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_line_of_every_event_parses_whatever_its_texts_say(
    kind: type[Event], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both formats: one printable line, every field under its name, no text cut silently."""
    event = make(kind, text)
    logfmt = line_of(LogLines("logfmt"), event, caplog)
    as_json = line_of(LogLines("json"), event, caplog)

    for line in (logfmt, as_json):
        assert line.isprintable()
        assert len(line) < 20_000
    fields = parse_logfmt(logfmt)
    document = json.loads(as_json)
    assert set(fields) == set(document) == {"event", *event.details()}
    assert fields["event"] == document["event"] == kind.__name__
    for name, value in event.details().items():
        if isinstance(value, str):
            assert fields[name] == document[name]
            assert document[name] == text or document[name].endswith(f"({len(text)} characters)")
            assert document[name][:1000] == text[:1000]
        elif isinstance(value, Level):
            assert fields[name] == document[name] == "STALE"
        elif name == "until":
            assert fields[name] == document[name] == "2023-11-14T22:13:20.500+00:00"
            assert datetime.fromisoformat(document[name]).timestamp() == value
        elif value == MEASURED:
            assert (fields[name], document[name]) == ("1234.568", 1234.568)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize(
    ("event", "left"),
    [
        (
            AnswerDegraded(
                call="a",
                dependency="",
                level=Level.FULL,
                reason="b",
                error="",
                source="c",
                age=None,
            ),
            {"call", "level", "reason", "source"},
        ),
        (FallbacksExhausted(call="a", dependency="b", reasons={}), {"call", "dependency"}),
    ],
    ids=["texts", "mapping"],
)
def test_line_leaves_out_what_has_no_value(
    form: Any,  # noqa: ANN401 - a literal
    event: Event,
    left: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither `age=` nor `age=None`: a reader need not know what either means."""
    line = line_of(LogLines(form), event, caplog)
    fields: Mapping[str, object] = json.loads(line) if form == "json" else parse_logfmt(line)
    assert set(fields) == {"event", *left}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, 0.0),
        (0.000123456, 0.000123),
        (0.1 + 0.2, 0.3),
        (12.3456, 12.346),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1e300, 1e300),
        (10**5000, "a number of 16610 bits"),
    ],
    ids=lambda value: str(value) if isinstance(value, float) else type(value).__name__,
)
def test_numbers_are_rounded_and_always_json(
    value: float, written: object, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON knows no NaN, and Python writes no number of 5,000 digits."""
    event = AnswerDegraded(
        call="a", dependency="b", level=Level.STALE, reason="r", error="e", source="s", age=value
    )
    line = line_of(LogLines("json"), event, caplog)
    assert json.loads(line, parse_constant=pytest.fail)["age"] == written
    assert "age=" in line_of(LogLines("logfmt"), event, caplog)


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_format_of_an_app_is_its_setting(
    form: Any,  # noqa: ANN401 - a literal
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given in code or in the environment, one setting changes all lines of the app."""
    app = Celery("lines", broker="memory://", set_as_current=False)
    settings = Settings.from_environment({"RESILIENCE_LOG_FORMAT": form})
    resilience = Resilience(app, dependencies=[Dependency("mail")], settings=settings)

    resilience.announce(StoreLost(error="re fused"))

    expected = {
        "json": '{"event": "StoreLost", "error": "re fused"}',
        "logfmt": 'event=StoreLost error="re fused"',
    }
    assert caplog.messages == [expected[form]]


def test_format_of_what_belongs_to_no_app_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline or a database that is used by itself writes as the apps of its process do."""
    monkeypatch.setenv("RESILIENCE_LOG_FORMAT", "json")
    assert (
        line_of(LogLines(), StoreLost(error="x"), caplog) == '{"event": "StoreLost", "error": "x"}'
    )


def test_line_names_the_trace_of_the_current_span(caplog: pytest.LogCaptureFixture) -> None:
    """From the line of a degraded answer to its trace; outside of spans there is no such field."""
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("job") as span:
        within = line_of(LogLines("json"), StoreLost(error="x"), caplog)
    outside = line_of(LogLines("json"), StoreLost(error="x"), caplog)

    assert json.loads(within)["trace_id"] == trace.format_trace_id(span.get_span_context().trace_id)
    assert "trace_id" not in json.loads(outside)
