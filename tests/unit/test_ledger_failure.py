"""What is kept of an exception, and what of it is shown."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from resilience import ConfigurationError
from resilience.breaker import Breaker
from resilience.declared import check_order
from resilience.ledger.failure import Failure
from resilience.ledger.redaction import redacted
from resilience.pulse import Pulse
from resilience.text import hide_in_text
from tests.unit.odd_errors import SilentError

FRAMES = 8
TEXT_LENGTH = 1000
TRACEBACK_LENGTH = 2000

TASK = "shop.mail.send"


def kept(raise_it: Callable[[], object]) -> Failure:
    """Return what is kept of the error that *raise_it* raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it raises
        raise_it()
    return Failure.of(caught.value, task=TASK)


def fail(said: str, kind: type[Exception] = ValueError) -> Callable[[], object]:
    """Return what raises, always at the same place."""

    def raise_it() -> None:
        raise kind(said)

    return raise_it


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no user 17", "no user 4711"),
        ("at 0x7f3a99e0", "at 0x7fffff10"),
        (
            "job 9b2f0c1e-1111-4a4a-8c8c-0123456789ab failed",
            "job 00000000-2222-4b4b-9d9d-ba9876543210 failed",
        ),
        ("no such mailbox: ann@example.com", "no such mailbox: bob.b+x@mail.example.org"),
        ("timeout after 1.5 s", "timeout  after\n30 s"),
        ("commit 0123abcd9 is gone", "commit ffff00012 is gone"),
        ("10.0.0.1:8080 refused", "10.0.0.27:8081 refused"),
    ],
)
def test_texts_that_differ_in_what_varies_have_one_cause(one: str, other: str) -> None:
    """Ids, addresses and numbers do not split the letters of one outage."""
    assert kept(fail(one)).fingerprint == kept(fail(other)).fingerprint


def test_other_class_text_or_place_is_another_cause() -> None:
    """What is told apart by a reader of the log is told apart here."""

    def elsewhere() -> None:
        msg = "no user 17"
        raise ValueError(msg)

    causes = [
        fail("no user 17"),
        fail("no user 17", LookupError),
        fail("no table 17"),
        elsewhere,
    ]

    assert len({kept(cause).fingerprint for cause in causes}) == len(causes)


def test_cause_is_where_the_users_code_called_a_library() -> None:
    """Two broken calls are two causes, though both end at one place of the library."""

    def load() -> None:
        json.loads("[")

    def read() -> None:
        json.loads("[")

    assert kept(load).text == kept(read).text
    assert kept(load).fingerprint == kept(load).fingerprint
    assert kept(load).fingerprint != kept(read).fingerprint


def test_what_is_kept_of_an_error_is_bounded() -> None:
    """A huge text or a deep recursion does not fill the ledger."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        dive(depth - 1)

    failure = kept(lambda: dive(200))

    assert len(failure.text) == TEXT_LENGTH
    assert len(failure.traceback) <= TRACEBACK_LENGTH
    assert 1 <= failure.traceback.count("  File ") <= FRAMES


def test_traceback_shows_the_users_code_without_this_library() -> None:
    """Who looks at a dead letter looks for a place that he can mend."""
    breaker = Breaker("mail", Pulse(None), listeners=())

    def send() -> None:
        breaker.call(fail("refused"))

    failure = kept(send)

    assert "in test_traceback_shows" in failure.traceback
    assert "breaker.py" not in failure.traceback


def test_traceback_of_a_fault_of_this_library_is_whole() -> None:
    """There is nothing else to look at."""
    with pytest.raises(ConfigurationError) as caught:
        check_order("hold mail", "", "")
    only_ours = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # type: ignore[union-attr]

    assert "in check_order" in Failure.of(only_ours, task=TASK).traceback


def test_error_whose_text_raises_is_kept_all_the_same() -> None:
    """What broke must not be hidden by how it says so."""
    failure = kept(fail("silent", SilentError))

    assert failure.type.endswith("SilentError")
    assert "raised KeyError" in failure.text
    assert json.loads(failure.to_line(1.5)) == {
        "at": 1.5,
        "type": failure.type,
        "text": failure.text,
        "traceback": failure.traceback,
    }


def test_error_that_was_never_raised_is_kept() -> None:
    """A worker that was killed left no traceback."""
    failure = Failure.of(ConnectionError("gone"), task=TASK)

    assert (failure.type, failure.text, failure.traceback) == ("ConnectionError", "gone", "")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"kwargs": {"pin": "12345"}}, {"kwargs": {"pin": "***"}}),
        ({"kwargs": {"pin": None, "to": "ann"}}, {"kwargs": {"pin": "***", "to": "ann"}}),
        ({"deep": [{"er": {"pin": ["a"]}}]}, {"deep": [{"er": {"pin": "***"}}]}),
        (
            {"args": ["ann", "12345"], "names": ["to", "pin"]},
            {"args": ["ann", "***"], "names": ["to", "pin"]},
        ),
        ({"args": ["ann", 1], "names": None}, {"args": ["***", "***"], "names": None}),
        ({"args": ["ann"]}, {"args": ["ann"]}),
        ({"args": ["ann"], "names": ["to", "pin"]}, {"args": ["ann"], "names": ["to", "pin"]}),
        (
            {"pin": {"old": 12345, "new": "67890"}, "argsrepr": "('12345', '67890', 'ann')"},
            {"pin": "***", "argsrepr": "***"},
        ),
        ({"pin": "1", "kwargsrepr": "{'pin': '1'}"}, {"pin": "***", "kwargsrepr": "***"}),
        ({"to": "ann", "argsrepr": "('ann',)"}, {"to": "ann", "argsrepr": "('ann',)"}),
        ({"pin": "12345", "said": "not 12345!"}, {"pin": "***", "said": "not ***!"}),
        ({"pin": "12\n45", "said": "'12\\n45'"}, {"pin": "***", "said": "'***'"}),
        (
            {"pin": "abcd", "more": "abcdef", "also": {"pin": "abcdef"}},
            {"pin": "***", "more": "***", "also": {"pin": "***"}},
        ),
        (
            {"pin": "bcde", "more": "abcdef", "also": {"pin": "abcdef"}},
            {"pin": "***", "more": "***", "also": {"pin": "***"}},
        ),
        ({"pin": "12\n45", "said": "12\n45!"}, {"pin": "***", "said": "***!"}),
        (
            {"args": ["ann", "12345"], "names": ["to", "pin"], "said": "12345"},
            {"args": ["ann", "***"], "names": ["to", "pin"], "said": "***"},
        ),
        ({"a": [{"pin": "12345"}], "said": "12345"}, {"a": [{"pin": "***"}], "said": "***"}),
        ({"args": {"0": "ann"}, "names": ["pin"]}, {"args": {"0": "ann"}, "names": ["pin"]}),
        ({"pin": "1234", "page": "1234"}, {"pin": "***", "page": "***"}),
        ({"pin": "123", "page": "1234"}, {"pin": "***", "page": "1234"}),
        ({"pin": "1", "page": "1"}, {"pin": "***", "page": "1"}),
        ({"pin": True, "text": "True"}, {"pin": "***", "text": "True"}),
        (["pin", 7, None], ["pin", 7, None]),
    ],
)
def test_named_argument_is_hidden_wherever_it_is(message: object, expected: object) -> None:
    """Under its name at any depth, at its place, and quoted in another text."""
    shown, _ = redacted(message, [], frozenset({"pin"}))

    assert shown == expected


def test_errors_that_quote_a_hidden_argument_hide_it() -> None:
    """The rest of them stays readable."""
    message: dict[str, Any] = {"kwargs": {"pin": "12345"}}
    errors = [{"text": "pin 12345 is wrong", "type": "ValueError", "at": 1.5}]

    assert redacted(message, errors, {"pin"})[1] == [{**errors[0], "text": "pin *** is wrong"}]
    assert redacted(message, errors, ()) == (message, errors)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://ann:hunter22@host/0 refused", "redis://***@host/0 refused"),
        ("password=hunter22&user=ann", "password=***&user=ann"),
        ("401 {'password': 'hunter 22', 'a': 1}", "401 {'password': ***, 'a': 1}"),
        ('{"token": "hunter22', '{"token": ***'),
        ("the password is wrong: try again", "the password is wrong: try again"),
    ],
)
def test_secrets_in_a_text_are_hidden(text: str, shown: str) -> None:
    """Credentials in addresses, and what stands behind a name that is to be hidden."""
    assert hide_in_text(text, ["token", "password"]) == shown


def test_addresses_are_hidden_where_no_name_is() -> None:
    """A password in an address is nobody's business."""
    assert hide_in_text("amqp://a:b@c password=d", ()) == "amqp://***@c password=d"
