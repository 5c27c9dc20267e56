"""What operators see of dead letters, and how they let them go or run them again."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from resilience.cli.words import briefly, duration
from resilience.text import printable
from tests.unit.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with an empty ledger."""
    made = Desk(tmp_path / "ledger.sqlite3")
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("1.5s", 1.5), ("15m", 900), ("2h", 7200), ("7d", 604800)]
)
def test_duration_is_read_in_the_units_that_it_is_shown_in(text: str, seconds: float) -> None:
    """What a table shows can be typed."""
    assert duration(text) == seconds
    assert duration(briefly(seconds)) == int(seconds)


@pytest.mark.parametrize("text", ["", "h", "-1s", "2 h", "1w", "inf", "nan", "9" * 400 + "s"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(click.BadParameter, match="is no duration"):
        duration(text)


def test_text_of_a_stranger_does_not_steer_the_terminal() -> None:
    """Escapes, carriage returns and halves of characters are shown, not sent; lines stay."""
    assert printable("a\x1b[2J\r\udc80\n\tb") == "a\\x1b[2J\\r\\udc80\n        b"


def test_list_says_what_happened_and_what_to_paste(desk: Desk) -> None:
    """Age, attempts, task, reason, last error, and id and cause in full."""
    desk.bury("one")

    done = desk.run("dead", "list", "--each")

    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    cause = desk.ledger.letters.show("one").fingerprint  # type: ignore[union-attr]
    for said in ("0s", " 2 ", "shop.send", "exhausted:", "ConnectionError:", "one", cause):
        assert said is not None
        assert said in words
    assert "first of all" not in words


def test_views_hide_what_is_to_be_hidden(desk: Desk) -> None:
    """An argument called so shows in no view, nor where an error quotes it."""
    desk.bury("one")

    for words in (
        ["list"],
        ["list", "--json"],
        ["list", "--each"],
        ["list", "--each", "--json"],
        ["show", "one"],
        ["show", "one", "--json"],
    ):
        done = desk.run("dead", *words)
        assert "hunter22" not in done.output
        assert "***" in done.output


def test_list_is_limited_and_says_so(desk: Desk) -> None:
    """The oldest come first."""
    for name in ("one", "two", "three"):
        desk.bury(name)

    limited, all_of_them = (
        desk.run("dead", "list", "--each", "--limit", most) for most in ("2", "3")
    )

    assert "The oldest 2; there are more." in limited.stdout
    assert "three" not in limited.stdout
    assert "there are more" not in all_of_them.stdout


def test_list_is_filtered(desk: Desk) -> None:
    """By task, cause, dependency and age, each on its own and all at once."""
    desk.bury("old", task="shop.charge")
    desk.bury("new")
    desk.bury("other", error="no such mailbox")
    desk.alter("UPDATE resilience_jobs SET died = died - 7200 WHERE id = 'old'")
    cause = desk.ledger.letters.show("other").fingerprint  # type: ignore[union-attr]

    def found(*words: str) -> list[str]:
        return [letter["id"] for letter in desk.said("dead", "list", "--each", *words)]

    assert found("--task", "shop.charge") == ["old"]
    assert found("--fingerprint", str(cause)) == ["other"]
    assert found("--older-than", "1h") == ["old"]
    assert found("--dependency", "mail", "--limit", "2") == ["old", "new"]
    assert found("--task", "shop.send", "--older-than", "1h") == []


def test_nothing_found_is_no_error_and_says_what_there_is(desk: Desk) -> None:
    """A slip in a name must not look like a clean slate."""
    desk.bury("one")

    for words in (["list"], ["replay", "--reason", "x"], ["discard", "--reason", "x"]):
        done = desk.run("dead", *words, "--dependency", "male")
        assert done.exit_code == 0, done.output
        assert done.stdout == (
            "No dead letters of dependency 'male'. Did you mean the dependency 'mail'? "
            "By dependency: mail: 1.\n"
        )
    assert desk.said("dead", "list", "--dependency", "male") == []
    assert desk.letters() == ["one"]


def test_letters_are_listed_by_cause(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for a task and cause, the largest first, with what lists the letters of one."""
    for number, name in enumerate("abc"):
        desk.bury(name, error=f"no mailbox {number}")
    desk.bury("d", task="shop.charge")
    for number, name in enumerate("abcd"):
        desk.alter("UPDATE resilience_jobs SET died = ? WHERE id = ?", 1e9 + number, name)

    first, second = desk.said("dead", "list")

    assert (first["letters"], first["oldest"], first["newest"]) == (3, 1e9, 1e9 + 2)
    assert (first["task"], first["dependency"], first["reason"]) == (
        "shop.send",
        "mail",
        "exhausted",
    )
    assert first["last_error"] == "ConnectionError: no mailbox 2"
    assert (second["letters"], second["task"]) == (1, "shop.charge")
    letters = desk.said("dead", "list", "--fingerprint", first["fingerprint"])
    assert [letter["id"] for letter in letters] == ["a", "b", "c"]
    monkeypatch.setenv("COLUMNS", "60")
    shown = desk.run("dead", "list", "--limit", "1").stdout
    assert first["fingerprint"] in shown  # in one piece, to be pasted
    assert "shop.charge" not in shown
    assert "The largest 1; there are more." in shown


def test_slip_in_the_name_of_a_task_is_noticed(desk: Desk) -> None:
    """The command says which task may have been meant."""

    @desk.app.task(name="shop.send", shared=False)
    def send() -> None: ...

    done = desk.run("dead", "list", "--task", "shop.sned")

    assert done.stdout == (
        "No dead letters of task 'shop.sned'. Did you mean the task 'shop.send'? "
        "By dependency: none.\n"
    )


def test_show_prints_all_errors_of_all_attempts(desk: Desk) -> None:
    """In order, each with its time and where it came from."""
    desk.bury("one")

    said = desk.run("dead", "show", "one").stdout

    first, last = said.index("TimeoutError: first of all"), said.index("ConnectionError: mail")
    assert first < last
    assert said.count(" UTC: ") == 2
    assert '["one"]' in said


def test_show_of_an_unknown_job_says_so(desk: Desk) -> None:
    """Exit code 1, for scripts."""
    done = desk.run("dead", "show", "nobody")
    listed = desk.run("dead", "show", "nobody", "--json")

    assert (done.exit_code, done.stdout) == (1, "The ledger holds no job nobody.\n")
    assert listed.exit_code == 1
    assert json.loads(listed.stdout) == {"job": None, "audit": []}


def test_row_that_cannot_be_read_is_listed_and_shown(desk: Desk) -> None:
    """Neither broken JSON nor broken text keeps an operator from the letters."""
    desk.bury("one")
    desk.alter(
        "UPDATE resilience_jobs SET message = ?, errors = ?, task = CAST(? AS TEXT)",
        "{",
        "[1\n",
        b"shop\xff\x1b[2J",
    )

    for words in (["list"], ["show", "one"], ["list", "--json"], ["show", "one", "--json"]):
        done = desk.run("dead", *words)
        assert done.exit_code == 0, done.output
        assert "\x1b" not in done.stdout
        assert "shop" in done.stdout


def test_text_that_cannot_be_read_is_hidden_as_a_whole(desk: Desk) -> None:
    """Where the value of a hidden argument ends in it is unknown."""
    desk.bury("one")
    broken = '{"kwargs": {"password": "hunter2!"'
    desk.alter("UPDATE resilience_jobs SET message = ?, errors = ?", broken, broken)

    for words in (["list"], ["show", "one"], ["list", "--json"], ["show", "one", "--json"]):
        done = desk.run("dead", *words)
        assert done.exit_code == 0, done.output
        assert "hunter2!" not in done.output
    assert "(unreadable)" in done.output


def test_discarded_letter_is_gone_and_the_audit_knows_who_and_why(desk: Desk) -> None:
    """Of what was discarded who, when and why remain."""
    desk.bury("one")
    desk.bury("two")

    done = desk.run("dead", "discard", "one", "--actor", "ann", "--reason", "a test order", "--yes")

    assert (done.exit_code, done.stdout) == (0, "1 discarded.\n")
    assert desk.letters() == ["two"]
    shown = desk.run("dead", "show", "one").stdout
    assert "discard of one" in shown
    assert "by ann: a test order" in shown


def test_dry_run_changes_nothing_and_needs_no_reason(desk: Desk) -> None:
    """It says how many would have been."""
    for name in ("one", "two"):
        desk.bury(name)

    for verb, done in (("replay", "replayed"), ("discard", "discarded")):
        assert desk.run("dead", verb, "--all", "--dry-run").stdout == f"2 would be {done}.\n"
        assert desk.said("dead", verb, "--all", "--limit", "1", "--dry-run") == {
            f"would_be_{done}": 1
        }
    assert desk.letters() == ["one", "two"]
    assert desk.ledger.letters.audit() == []


def test_json_has_the_same_keys_when_no_letter_matches(desk: Desk) -> None:
    """A script reads what was replayed or discarded, and finds nothing there."""
    words = ("--dependency", "users", "--reason", "x")
    assert desk.said("dead", "replay", *words) == {
        "replayed": {},
        "sample": None,
        "stopped": False,
    }
    assert desk.said("dead", "discard", *words, "--yes") == {"discarded": []}
    assert desk.said("dead", "replay", *words, "--dry-run") == {"would_be_replayed": 0}


@pytest.mark.parametrize("verb", ["replay", "discard"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--reason", "x"], "--all", id="which"),
        pytest.param(["--limit", "5", "--reason", "x"], "--all", id="limit-is-no-filter"),
        pytest.param(["one", "--all", "--reason", "x"], "both", id="one-and-all"),
        pytest.param(["--all"], "--reason", id="no-reason"),
        pytest.param(["--all", "--reason", " "], "--reason", id="empty-reason"),
        pytest.param(["--all", "--reason", "x", "--actor", ""], "--actor", id="nobody"),
        pytest.param(["--all", "--reason", "x", "--limit", "0"], "0", id="none-of-them"),
    ],
)
def test_order_that_does_not_say_enough_is_refused(
    desk: Desk, verb: str, words: list[str], said: str
) -> None:
    """Which, who and why are said, or nothing happens: exit code 2."""
    desk.bury("one")

    done = desk.run("dead", verb, *words)

    assert done.exit_code == 2
    assert said in done.stderr
    assert desk.letters() == ["one"]


def test_replayed_letters_are_due_at_the_rate_asked_for(desk: Desk) -> None:
    """One in ten seconds: that far apart, with new ids that point to their letters."""
    for number in range(4):
        desk.bury(f"letter-{number}")

    said = desk.said("dead", "replay", "--all", "--rate", "0.1", "--no-sample", "--reason", "x")

    assert list(said["replayed"]) == [f"letter-{number}" for number in range(4)]
    jobs = [desk.ledger.letters.show(name) for name in said["replayed"].values()]
    assert [job.origin for job in jobs if job] == list(said["replayed"])
    assert [job.state for job in jobs if job] == ["scheduled"] * 4
    due = [job.due or 0.0 for job in jobs if job]
    assert [later - due[0] for later in due] == pytest.approx([0, 10, 20, 30], abs=5)
    assert desk.letters() == []


def test_replay_of_few_takes_no_sample(desk: Desk) -> None:
    """There is nothing left to protect."""
    desk.bury("one")

    said = desk.said("dead", "replay", "one", "--reason", "x", "--sample-seconds", "1h")

    assert list(said["replayed"]) == ["one"]
    assert (said["sample"], said["stopped"]) == (None, False)
    [entry] = desk.said("dead", "show", "one")["audit"]
    assert (entry["action"], entry["replay"]) == ("replay", said["replayed"]["one"])


def test_purge_forgets_what_is_old_enough(desk: Desk) -> None:
    """The young stay."""
    desk.bury("old")
    desk.bury("new")
    desk.alter("UPDATE resilience_jobs SET died = died - 86400 WHERE id = 'old'")

    done = desk.run("dead", "purge", "--older-than", "12h", "--yes")

    assert done.exit_code == 0, done.output
    assert "1 letters, 0 audit entries, 0 idempotency records" in done.stdout
    assert desk.letters() == ["new"]
    assert desk.run("dead", "purge").exit_code == 2


def test_purge_forgets_nothing_if_the_answer_is_no(desk: Desk) -> None:
    """It asks, as what it forgets is gone for good."""
    desk.bury("one")

    done = desk.run("dead", "purge", "--older-than", "0s", answer="n\n")

    assert done.exit_code == 1
    assert "Forget for good" in done.stderr
    assert desk.letters() == ["one"]


def test_replayed_job_is_a_fresh_one_and_the_audit_knows_who_made_it(desk: Desk) -> None:
    """Nothing says any more why its letter died, but for the numbered errors so far."""
    desk.bury("one")

    said = desk.said("dead", "replay", "one", "--actor", "ann", "--reason", "mail is back")

    known = desk.said("dead", "show", said["replayed"]["one"])
    job, [entry] = known["job"], known["audit"]
    assert [job[name] for name in ("died", "reason", "fingerprint", "owner")] == [None] * 4
    assert (entry["actor"], entry["reason"]) == ("ann", "mail is back")
    shown = desk.run("dead", "show", job["id"]).stdout
    assert [f"error {number}," in shown for number in (0, 1, 2, 3)] == [False, True, True, False]
