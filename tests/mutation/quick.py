"""Pytest plugin of `make mutants`: finds out as soon as it can that a mutant is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from mutmut.mutation.trampoline import get_mutant_under_test
from mutmut.state import state
from mutmut.stats import record_trampoline_hit

SLOW_SECONDS = 0.1
STATS = Path("mutmut-stats.json")
"""What mutmut knows of the tests, in the directory in which it runs them."""
LIMITS = "resilience.budget.limits.x_"
ELSEWHERE = {
    "test_greenlet": tuple(
        LIMITS + name for name in ("call_within", "_greenlets_switch", "_call_in_greenlet")
    ),
    "test_call_in_a_child": (f"{LIMITS}_note_main_thread",),
    "test_child_takes_readings": ("resilience.bulkhead.room.xǁ_Guardǁ_renew",),
}
"""By how a test's name begins: what it calls in another process, where mutmut does not see it."""

# A failing example is not made smaller: nobody reads it.
settings.register_profile(
    "mutants", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests last: most mutants are killed by then."""
    known = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    items.sort(key=lambda item: (known.get(item.nodeid, 0.0) > SLOW_SECONDS, str(item.path)))


def pytest_collection_finish() -> None:
    """Forget what was called while modules were imported: it is no doing of the first test."""
    state()._stats.clear()  # noqa: SLF001 - mutmut has no other way


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Note what a test calls in another process."""
    for beginning, functions in ELSEWHERE.items():
        if get_mutant_under_test() == "stats" and item.name.startswith(beginning):
            for function in functions:
                record_trampoline_hit(function)
