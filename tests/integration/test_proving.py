"""`resilience prove`: planted mistakes are named with the fault that shows them."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from resilience.testing.process import import_path, inherited_env

APPS = Path(__file__).parent / "proving_apps"
SECONDS = 280
MISTAKES = {
    "no last step": ("users cold", "the answer is FAILED (AllFallbacksFailedError), but STALE"),
    "never cached": ("users error", "the answer is FAILED (AllFallbacksFailedError), but STATIC"),
    "same dependency": ("users error", "is FAILED (AllFallbacksFailedError), but REDUCED"),
    "required by mistake": ("prices error", "is FAILED (price: missing), but REDUCED"),
    "charged again": ("users execute-then-timeout", "one call had its effect 3 times"),
    "unmarked": (
        "users execute-then-timeout",
        "claims to be FULL, although the call planted.user of users",
    ),
    "half marked": ("users error", "is REDUCED and does not say: reason, dependency"),
    "early": ("users killed", "is lost: it is neither done nor in the ledger"),
    "sulking": ("users error", "s after the fault had ended there was still a FAILED one"),
}
"""By call of `planted.MISTAKES`: the fault that shows the mistake, and what is said of it."""
MORE = {
    "impatient": ("slow hang", "but its limit is 0.5 s; give slow a shorter timeout"),
    "untimed": ("untimed hang", "and nothing limits it; give the dependency a timeout"),
    "deaf": ("deaf refused", "the circuit of deaf did not open after 40 timeouts"),
    "mail in passing": ("mail error", "although the call planted.plain_mail of mail failed"),
}
"""The same of `planted_more.MISTAKES`."""
QUICK = ("no last step", "charged again", "unmarked")
"""One mistake of each kind that is soon shown: a level, a deed done twice, a missing mark."""

Document = dict[str, Any]


def start(
    *words: str, app: str = "planted", capture: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Prove an app to the end; show the progress unless it is to be captured."""
    return subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "celery", "-A", app, "resilience", "prove", *words],
        env=inherited_env({"PYTHONPATH": import_path(APPS)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if capture else None,
        check=False,
        timeout=SECONDS,
    )


def prove(*words: str, app: str = "planted") -> tuple[int, Document]:
    """Return the exit code of a proof, and the JSON that it prints."""
    done = start(*words, "--json", app=app)
    document: Document = json.loads(done.stdout)
    return done.returncode, document


def assert_named(document: Document, mistakes: Mapping[str, tuple[str, str]]) -> None:
    """Check that each mistake is named with the fault that shows it."""
    for name, (fault, words) in mistakes.items():
        said = [one for one in document["wrong"] if one.startswith(f"{name} under {fault}: ")]
        assert any(words in one for one in said), document["wrong"]


@pytest.fixture(scope="module")
def quick() -> tuple[int, Document]:
    """What a proof of some calls under some faults ends in."""
    kinds = "cold,execute-then-timeout"
    return prove("--calls", "quick:QUICK", "--all", "--kinds", kinds)


def test_planted_mistakes_are_named_with_the_fault_that_shows_them(
    quick: tuple[int, Document],
) -> None:
    """Each mistake is named by call, fault and mend, and the exit code says that one is there."""
    code, document = quick

    assert code == 1
    assert_named(document, {name: MISTAKES[name] for name in QUICK})


def test_sound_calls_pass(quick: tuple[int, Document]) -> None:
    """Nothing is said of calls without a mistake, and the table says what answers."""
    _, document = quick
    rows = {(one["call"], one["fault"]): (one["level"], one["source"]) for one in document["rows"]}

    assert not [one for one in document["wrong"] if one.startswith(("chained", "page"))]
    assert rows["chained", "none"] == ("FULL", "")
    assert rows["chained", "users execute-then-timeout"] == ("STALE", "stale")
    assert rows["chained", "users cold"] == ("STATIC", "static")
    assert rows["page", "prices execute-then-timeout"] == ("REDUCED", "price: missing")
    assert rows["page", "users execute-then-timeout"] == ("FAILED", "user: missing")


def test_app_that_would_not_be_proved_on_a_broker_of_its_own_is_refused() -> None:
    """A proof never reaches the real broker: an app that ignores the environment is an error."""
    done = start("celery.ping", app="stubborn", capture=True)

    assert done.returncode == 2
    assert "the app does not read its settings from the environment" in done.stderr.decode()


@pytest.mark.long
def test_all_planted_mistakes_are_named() -> None:
    """So is each of a dozen, those that only a killed worker shows among them."""
    kinds = "error,cold,execute-then-timeout,killed"

    code, document = prove("--calls", "planted:MISTAKES", "--all", "--kinds", kinds)

    assert code == 1
    assert_named(document, MISTAKES)


@pytest.mark.long
def test_mistakes_of_dependencies_and_jobs_are_named() -> None:
    """So are dependencies that are declared wrong, and jobs that get lost."""
    words = ("--calls", "planted_more:MISTAKES", "--all", "--patience", "4s")

    code, document = prove(*words, app="planted_more")

    assert code == 1
    assert_named(document, MORE)


@pytest.mark.long
def test_mistake_that_only_two_faults_together_show_is_named() -> None:
    """Each of two timeouts fits the budget, and their sum does not."""
    call = "one after the other"

    code, document = prove("--calls", "planted:MISTAKES", "--kinds", "hang", "--pairs", call)

    assert code == 1
    [sentence] = [one for one in document["wrong"] if "its limit is 0.7 s" in one]
    assert sentence.startswith(f"{call} under prices hang + users hang: ")


@pytest.mark.long
@pytest.mark.parametrize("app", ["planted", "planted_more"])
def test_all_sound_calls_pass_under_every_fault(app: str) -> None:
    """No fault of any kind breaks a promise of an app without a mistake."""
    code, document = prove("--calls", f"{app}:SOUND", "--all", app=app)

    assert code == 0, document["wrong"]
