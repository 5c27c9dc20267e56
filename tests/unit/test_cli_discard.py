"""Dead letters that an operator discards: those that were asked about, and no other."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from resilience.ledger import Which
from tests.unit.desk import Desk

BY: dict[str, Any] = {"actor": "bob", "reason": "spam"}


class LateYes(BytesIO):
    """What somebody types who says yes only after something has happened."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__(b"y\n")
        self._happens = [happens]

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return what is typed next."""
        while self._happens:
            self._happens.pop()()
        return super().read1(size)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with three letters, and a question that is open."""
    made = Desk(tmp_path / "ledger.sqlite3")
    made.bury("old", task="shop.charge")
    made.bury("new")
    made.bury("other", error="no such mailbox")
    made.alter("UPDATE resilience_jobs SET died = died - 7200 WHERE id = 'old'")
    yield made
    made.ledger.close()


def discard_late(desk: Desk, happens: Callable[[], None]) -> str:
    """Discard all letters, but answer the question after *happens*; return what was said."""
    done = desk.run("dead", "discard", "--all", "--reason", "x", answer=LateYes(happens))
    assert done.exit_code == 0, done.output
    assert "Discard 3 dead letters for good?" in done.stderr
    return done.stdout


def test_letter_that_dies_while_the_question_is_open_stays(desk: Desk) -> None:
    """Nobody has agreed to lose it."""
    assert discard_late(desk, lambda: desk.bury("late")) == "3 discarded.\n"

    assert desk.letters() == ["late"]


def test_no_letter_is_discarded_in_place_of_one_that_has_gone(desk: Desk) -> None:
    """What a colleague took away meanwhile makes no room for letters that were not asked about."""

    def happens() -> None:
        assert desk.ledger.letters.discard(Which(id="old"), **BY, limit=1) == ["old"]
        desk.bury("late")

    assert discard_late(desk, happens) == "2 discarded.\n"

    assert desk.letters() == ["late"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        pytest.param(["--task", "shop.send"], ["old"], id="task"),
        pytest.param(["--older-than", "1h"], ["new", "other"], id="age"),
        pytest.param(["--dependency", "mail", "--limit", "1"], ["new", "other"], id="limit"),
        pytest.param(["--all", "--limit", "2"], ["other"], id="all-but-few"),
        pytest.param(["other"], ["old", "new"], id="id"),
    ],
)
def test_discard_forgets_what_is_named_and_nothing_else(
    desk: Desk, words: list[str], left: list[str]
) -> None:
    """The others stay, older or younger, and the command names what it has forgotten."""
    before = desk.letters()

    said = desk.said("dead", "discard", *words, "--reason", "x", "--yes")

    assert desk.letters() == left
    assert said == {"discarded": [name for name in before if name not in left]}


def test_discard_by_cause_leaves_other_causes(desk: Desk) -> None:
    """The fingerprint that a list shows chooses the letters that share it."""
    cause = desk.ledger.letters.show("other").fingerprint  # type: ignore[union-attr]

    desk.said("dead", "discard", "--fingerprint", str(cause), "--reason", "x", "--yes")

    assert desk.letters() == ["old", "new"]
