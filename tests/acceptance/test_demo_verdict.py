"""How the demo ends, by what its verdict says of each promise."""

import pytest

from demo.verdict import Check, conclude


@pytest.mark.parametrize(
    ("kept", "code", "words"),
    [
        ((True, True), 0, "the shop degraded gracefully."),
        ((True, None), 3, "no promise was broken, but 1 could not be judged."),
        ((None, None), 3, "no promise was broken, but 2 could not be judged."),
        ((True, False), 1, "promises broken: 1."),
        ((None, False, False), 1, "promises broken: 2."),
    ],
)
def test_promise_that_was_not_judged_is_not_a_kept_one(
    kept: tuple[bool | None, ...], code: int, words: str
) -> None:
    """Only a verdict in which every promise was kept is a success."""
    ended, text = conclude([Check(kept=one, text="") for one in kept])

    assert ended == code
    assert words in text
