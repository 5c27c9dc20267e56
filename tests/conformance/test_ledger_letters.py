"""What a ledger promises of dead letters, whatever database it is in."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count

import pytest

from resilience.errors import UnkeepableError
from resilience.ledger import Ledger, Which
from tests.conformance.ledger_jobs import (
    LEASE_SECONDS,
    MESSAGE,
    buried,
    by_hand,
    dead,
    failure,
    job,
    names,
    shown,
    states,
    take,
)

HOUR = 3600.0
MANY = 210
"""More letters than fit into one transaction."""
BY = {"actor": "ann", "reason": "mail is back"}


def ids(prefix: str = "new") -> Callable[[], str]:
    """Return a maker of ids."""
    numbers = count()
    return lambda: f"{prefix}-{next(numbers):04}"


CHOSEN = [
    (Which(), ["a", "b", "c"]),
    (Which(id="b"), ["b"]),
    (Which(dependency="sms"), ["b"]),
    (Which(task="shop.push"), ["c"]),
    (Which(dependency="mail", task="shop.push"), ["c"]),
    (Which(dependency="sms", task="shop.push"), []),
    (Which(min_age_seconds=0.0), ["a", "b", "c"]),
    (Which(min_age_seconds=HOUR), ["a"]),
    (Which(fingerprint="none"), []),
    (Which(ids=("a", "c", "gone")), ["a", "c"]),
    (Which(died_by=1e12), ["a", "b", "c"]),
    (Which(died_by=1.0), []),
]
"""What each filter chooses of the letters of the test below."""


def test_filters_choose_letters(ledger: Ledger, ledger_url: str) -> None:
    """Each filter counts, and with others all of them do; jobs that live are never chosen."""
    buried(ledger, "a")
    buried(ledger, "b", dependency="sms")
    buried(ledger, "c", task="shop.push")
    by_hand(ledger_url, f"UPDATE resilience_jobs SET died = died - {HOUR} WHERE id = 'a'")  # noqa: S608 - a constant
    ledger.add([job("alive")])

    for which, expected in CHOSEN:
        assert [letter.id for letter in ledger.letters.find(which, limit=9)] == expected
        assert ledger.letters.ids(which, limit=9) == expected
        jobs, newest = ledger.letters.extent(which)
        assert (jobs, newest is None) == (len(expected), not expected)
    assert ledger.letters.audit() == []
    assert states(ledger) == {"dead": 3, "outbox": 1}


def test_letter_is_replayed_with_another_message_or_stays_as_it_is(ledger: Ledger) -> None:
    """In one step with the audit; an edit that fails changes nothing, and a letter has one."""
    buried(ledger, "a")

    def edited(edit: Callable[[str], str]) -> dict[str, str]:
        return ledger.letters.replay(Which(id="a"), edit=edit, new_id=ids(), limit=1, **BY)

    def more(text: str) -> str:
        return text.replace("{", '{"more": 1, ', 1)

    with pytest.raises(ValueError, match="no edit"):
        edited(_fail)
    assert ledger.letters.states(["a", "b"]) == {"a": ("dead", 1)}
    assert edited(more) == {"a": "new-0000"}
    assert edited(more) == {}
    made = shown(ledger, "new-0000")
    assert (made.state, made.origin, made.message["more"]) == ("scheduled", "a", 1)
    ledger.letters.note("breaker observe", "mail", **BY)
    entries = [(one.action, one.job, one.replay) for one in ledger.letters.audit()]
    assert entries == [("breaker observe", "mail", None), ("edit", "a", "new-0000")]


def _fail(_text: str) -> str:
    msg = "no edit"
    raise ValueError(msg)


def test_letters_of_one_cause_have_one_fingerprint(ledger: Ledger) -> None:
    """All letters of a cause can be replayed, and none of another."""
    for name, said in {"a": "no user 17", "b": "no user 18", "c": "no such table"}.items():
        ledger.bury(job(name), reason="exhausted", error=failure(said))

    cause = Which(fingerprint=shown(ledger, "a").fingerprint)

    assert [letter.id for letter in ledger.letters.find(cause, limit=9)] == ["a", "b"]


def test_letters_are_counted_by_cause_and_task(ledger: Ledger) -> None:
    """The largest group first, each with one of its letters; filters hold; jobs do not count."""
    for name, said in {"a": "no user 17", "b": "no user 18", "c": "no such table"}.items():
        ledger.bury(job(name), reason="exhausted", error=failure(said))
    ledger.bury(job("d", task="shop.push"), reason="bug", error=failure("no user 17"))
    ledger.add([job("alive")])

    causes = ledger.letters.causes(Which(), limit=9)

    assert (causes[0][0], causes[0][3].id) == (2, "b")
    assert sorted(example.id for *_, example in causes) == ["b", "c", "d"]
    oldest, newest = (shown(ledger, name).died for name in "ab")
    assert causes[0][1:3] == (oldest, newest)
    assert len(ledger.letters.causes(Which(), limit=1)) == 1
    [(letters, *_, example)] = ledger.letters.causes(Which(task="shop.push"), limit=9)
    assert (letters, example.id) == (1, "d")


def test_replayed_letter_is_a_new_job_that_points_to_its_origin(ledger: Ledger) -> None:
    """It has a new id, all attempts before it, its history, and is no letter any longer."""
    ledger.bury(job("a", age_seconds=HOUR), reason="too_old", error=failure("first"))

    assert ledger.letters.replay(Which(), **BY, new_id=ids(), limit=9) == {"a": "new-0000"}
    [again] = take(ledger)

    assert (again.id, again.origin, again.attempts, again.dispatches) == ("new-0000", "a", 0, 1)
    assert again.message == job().message
    assert again.age_seconds < HOUR
    ledger.bury(again, reason="exhausted", error=failure("second"))
    assert [error["text"] for error in shown(ledger, "new-0000").errors] == ["first", "second"]
    assert dead(ledger) == ["new-0000"]


def test_replay_is_paced_and_starts_with_a_sample(ledger: Ledger) -> None:
    """No more letters than asked for are replayed, one after the other, oldest first."""
    buried(ledger, "a", "b", "c")

    replayed = ledger.letters.replay(Which(), **BY, new_id=ids(), limit=2, interval_seconds=HOUR)

    assert list(replayed) == ["a", "b"]
    assert names(take(ledger)) == ["new-0000"]
    assert dead(ledger) == ["c"]
    first, second = (shown(ledger, str(name)).due for name in replayed.values())
    assert first is not None
    assert second is not None
    assert abs(second - first - HOUR + LEASE_SECONDS) < 60


def test_many_letters_are_replayed_once_each(ledger: Ledger) -> None:
    """More than one transaction takes is no different, and the pace goes on through all."""
    buried(ledger, *(f"{number:04}" for number in range(MANY)))

    replayed = ledger.letters.replay(
        Which(), **BY, new_id=ids(), limit=MANY + 1, interval_seconds=1.0
    )

    assert list(replayed) == [f"{number:04}" for number in range(MANY)]
    assert states(ledger) == {"scheduled": MANY}
    dues = [shown(ledger, f"new-{number:04}").due or 0.0 for number in (0, MANY - 1)]
    assert abs(dues[1] - dues[0] - (MANY - 1)) < 60
    assert len(ledger.letters.audit(limit=2 * MANY)) == MANY


def test_letters_are_all_read_however_many_statements_it_takes(
    ledger: Ledger, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left out or taken twice where a page ends, also among letters that died at once."""
    monkeypatch.setattr("resilience.ledger.lookups.PAGE", 2)
    buried(ledger, *"abcdefg")
    by_hand(ledger_url, "UPDATE resilience_jobs SET died = 1e9 + 0.1 WHERE id < 'f'")

    for limit in range(9):
        expected = [*"abcdefg"[:limit]]
        assert ledger.letters.ids(Which(), limit=limit) == expected


def test_discarded_letter_is_gone(ledger: Ledger) -> None:
    """Only as many as asked for, oldest first, and no job that lives."""
    buried(ledger, "a", "b", "c")
    ledger.add([job("alive")])

    assert ledger.letters.discard(Which(), **BY, limit=2) == ["a", "b"]
    assert ledger.letters.discard(Which(id="alive"), **BY, limit=2) == []
    assert ledger.letters.show("a") is None
    assert states(ledger) == {"dead": 1, "outbox": 1}


def test_letter_that_is_not_among_those_to_discard_stays(ledger: Ledger) -> None:
    """Whoever has asked about some letters discards no other, however few are left of them."""
    buried(ledger, "a", "b", "c", "d")

    assert ledger.letters.discard(Which(), **BY, limit=3, among=["d", "b", "gone"]) == ["b"]
    assert ledger.letters.discard(Which(), **BY, limit=9, among=[]) == []
    assert states(ledger) == {"dead": 3}


def test_every_replay_and_discard_leaves_who_when_and_why(ledger: Ledger) -> None:
    """The audit outlives the letters, and is found by either id."""
    buried(ledger, "a", "b")
    ledger.letters.replay(Which(id="a"), **BY, new_id=ids(), limit=9)
    ledger.letters.discard(Which(id="b"), actor="bob", reason="spam", limit=9)

    discard, replay = ledger.letters.audit()

    assert (discard.action, discard.job, discard.replay) == ("discard", "b", None)
    assert (discard.actor, discard.reason, discard.task) == ("bob", "spam", "shop.mail.send")
    assert (replay.action, replay.job, replay.replay) == ("replay", "a", "new-0000")
    assert (replay.actor, replay.reason) == ("ann", "mail is back")
    assert 0 <= discard.at - replay.at < 60
    assert ledger.letters.audit(job="new-0000") == ledger.letters.audit(job="a") == [replay]
    assert ledger.letters.audit(limit=1) == [discard]


def test_purge_forgets_what_is_old_and_nothing_else(ledger: Ledger, ledger_url: str) -> None:
    """Retention takes letters, audit and results that are over; jobs that live stay."""
    buried(ledger, "old", "young", "gone")
    ledger.add([job("alive")])
    ledger.letters.discard(Which(id="gone"), **BY, limit=1)
    for key, keep_seconds in {"over": -1.0, "valid": HOUR}.items():
        ledger.claims.claim(key, owner="o", lease_seconds=HOUR)
        ledger.claims.complete(key, owner="o", result="1", keep_seconds=keep_seconds)
    by_hand(
        ledger_url,
        f"UPDATE resilience_jobs SET died = died - {HOUR} WHERE id = 'old'",  # noqa: S608 - a constant
        f"UPDATE resilience_jobs SET created = created - {HOUR}",  # noqa: S608 - as above
        f"UPDATE resilience_audit SET at = at - {HOUR}",  # noqa: S608 - as above
    )

    purged = ledger.letters.purge(older_than_seconds=HOUR / 2)

    assert (purged.letters, purged.audit, purged.claims) == (1, 1, 1)
    assert dead(ledger) == ["young"]
    assert states(ledger) == {"dead": 1, "outbox": 1}


def test_named_arguments_are_hidden_in_views_and_stored_as_they_are(ledger: Ledger) -> None:
    """Neither the argument nor an error that quotes it shows; a relay gets all."""
    ledger.park(job("a"), delay_seconds=0.0, error=failure("bad login hunter2!"))
    [taken] = take(ledger)
    ledger.bury(taken, reason="bug", error=failure())

    [letter] = ledger.letters.find(Which(), limit=1)

    assert "hunter2!" not in str(letter)
    assert letter.message == {**MESSAGE, "kwargs": {"password": "***"}}
    assert letter.errors[0]["text"] == "bad login ***"
    assert shown(ledger, "a") == letter
    assert taken.message == job().message
    assert "hunter2!" in taken.message


def test_value_that_the_database_cannot_hold_is_told_from_an_outage(
    ledger: Ledger, ledger_url: str
) -> None:
    """PostgreSQL holds no NUL, MariaDB no name so long; then nothing is changed. SQLite does."""
    buried(ledger, "a")
    holds = ledger_url.startswith("sqlite")

    with nullcontext() if holds else pytest.raises(UnkeepableError, match="cannot hold a value"):
        ledger.letters.discard(Which(id="a"), actor=300 * "a" + "\0", reason="spam", limit=1)

    assert dead(ledger) == ([] if holds else ["a"])
