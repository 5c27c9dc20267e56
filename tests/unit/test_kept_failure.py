"""What is kept of an exception, to the letter: operators read it, and letters are grouped by it."""

import functools
import json
import linecache
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from resilience.ledger.failure import Failure, fingerprint


class GoneError(Exception):
    """An error of the app."""


def raised(by: Callable[[], object]) -> BaseException:
    """Return the error that *by* ends in."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it raises
        by()
    return caught.value


def boom() -> None:
    """Fail."""
    raise GoneError("no mailbox")  # noqa: EM101, TRY003 - its source is looked for below


def test_error_is_kept_with_its_class_its_text_and_where_it_was_raised() -> None:
    """The class has its module, and a frame looks as in a traceback."""
    failure = Failure.of(raised(boom), task="shop.mail.send")
    line = boom.__code__.co_firstlineno + 2

    assert failure.type == f"{__name__}.GoneError"
    assert failure.text == "no mailbox"
    assert failure.traceback.endswith(
        f'  File "{__file__}", line {line}, in boom\n'
        f"    {linecache.getline(__file__, line).strip()}\n"
    )
    assert [part[:8] for part in failure.traceback.splitlines()[::2]] == ['  File "', '  File "']
    assert failure.fingerprint == fingerprint(failure.type, "no mailbox", f"{__name__}:boom")


def test_source_is_found_wherever_its_module_was_loaded_from() -> None:
    """An app may be in an archive: its loader knows the lines."""

    class Loader:
        def get_source(self, _name: str) -> str:
            return "def fail():\n    raise OSError\n"

    module: dict[str, Any] = {"__name__": "shop", "__loader__": Loader()}
    exec(compile(Loader().get_source("shop"), "/shop.zip/shop.py", "exec"), module)  # noqa: S102

    failure = Failure.of(raised(module["fail"]), task="shop.mail")

    assert failure.traceback.endswith(
        '  File "/shop.zip/shop.py", line 2, in fail\n    raise OSError\n'
    )


def test_class_of_python_itself_needs_no_module() -> None:
    """As Python names it."""
    assert Failure.of(KeyError("a"), task="shop").type == "KeyError"
    assert Failure.of(json.JSONDecodeError("a", "b", 0), task="shop").type == (
        "json.decoder.JSONDecodeError"
    )


def test_line_for_the_ledger_has_when_what_and_where() -> None:
    """One line of JSON for each error, so that one can be added to the others."""
    failure = Failure(type="OSError", text="a\nb", traceback="c\n", fingerprint="d")
    line = failure.to_line(12.5)

    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {"at": 12.5, "type": "OSError", "text": "a\nb", "traceback": "c\n"}


def test_beginning_of_a_text_and_end_of_a_traceback_are_kept() -> None:
    """A thousand characters of the text; of the frames the innermost eight, in 2,000 characters."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise GoneError("ab" * 3_000)
        dive(depth - 1)

    failure = Failure.of(raised(functools.partial(dive, 50)), task="shop")

    assert failure.text == "ab" * 500
    assert failure.traceback.endswith('raise GoneError("ab" * 3_000)\n')
    assert len(failure.traceback) <= 2_000
    short = Failure.of(
        raised(functools.partial(eval, "0" + "+0" * 9 + "+f(9)", {"f": frames})), task="s"
    )
    assert short.traceback.count("  File ") == 8


def frames(depth: int) -> None:
    """Fail, so many frames further in."""
    if not depth:
        raise GoneError
    frames(depth - 1)


def test_cause_is_told_by_the_first_200_characters_in_which_nothing_varies() -> None:
    """Blanks count as one; what comes later differs between calls of one cause."""
    assert fingerprint("A", "x" * 200 + "y", "p") == fingerprint("A", "x" * 200 + "z", "p")
    assert fingerprint("A", "x" * 199 + "y", "p") != fingerprint("A", "x" * 199 + "z", "p")
    assert fingerprint("A", " gone  for\n7 s", "p") == fingerprint("A", "gone for 12 s", "p")
    assert fingerprint("A", "gone for", "p") != fingerprint("A", "gonefor", "p")
    assert fingerprint("A", "user DEADBEEF1", "p") == fingerprint("A", "user 0badc0de2", "p")
    assert (
        len({fingerprint(*cause) for cause in (("A", "b", "c"), ("B", "b", "c"), ("A", "b", "d"))})
        == 3
    )
    assert len(fingerprint("A", "lone \ud800 surrogate", "p")) == 16


def test_fingerprint_of_a_cause_never_changes() -> None:
    """Letters of one cause are one group, whichever release has kept them."""
    assert fingerprint("OSError", "user 17  gone", "shop.mail:send") == "f9144764031b960c"
    assert Failure.of(ConnectionError("gone"), task="shop").fingerprint == "b36d31b47fffa479"


def test_place_is_the_innermost_function_of_the_app() -> None:
    """Not the library that it called, nor this one; the app may be installed like a library."""

    def load() -> None:
        json.loads("[")

    error = raised(load)
    kind, text = "json.decoder.JSONDecodeError", str(error)

    own = Failure.of(error, task="shop.mail")
    assert own.fingerprint == fingerprint(kind, text, f"{__name__}:{load.__qualname__}")
    installed = Failure.of(error, task="json.tool.run")
    assert installed.fingerprint == fingerprint(kind, text, "json.decoder:JSONDecoder.raw_decode")


def test_place_may_be_in_any_module_of_an_app_that_is_installed() -> None:
    """However deep it lies in the package that the task belongs to."""
    path = f"{sysconfig.get_path('purelib')}/shop/mail/sending.py"
    module: dict[str, Any] = {"__name__": "shop.mail.sending"}
    exec(compile("import json\ndef fail(): json.loads('[')", path, "exec"), module)  # noqa: S102

    error = raised(module["fail"])

    assert Failure.of(error, task="shop.orders.pay").fingerprint == fingerprint(
        "json.decoder.JSONDecodeError", str(error), "shop.mail.sending:fail"
    )


def test_place_is_where_it_was_raised_if_no_function_is_the_apps() -> None:
    """A failure of a library alone is grouped by the library's function."""
    error = raised(functools.partial(json.loads, "["))
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without this test's own frame

    assert Failure.of(error, task="shop").fingerprint == fingerprint(
        "json.decoder.JSONDecodeError", str(error), "json.decoder:JSONDecoder.raw_decode"
    )
