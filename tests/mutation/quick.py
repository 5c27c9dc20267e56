"""Pytest plugin of `make mutants`: kills a mutant as early as possible."""

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
"""Mutmut's statistics of the tests, in the directory in which it runs them."""
LIMITS = "resilience.budget.limits.x_"
ELSEWHERE = {
    "test_greenlet": tuple(
        LIMITS + name for name in ("call_within", "_greenlets_switch", "_call_in_greenlet")
    ),
    "test_call_in_a_child": (f"{LIMITS}_note_main_thread",),
    "test_child_takes_readings": ("resilience.bulkhead.room.xǁ_Guardǁ_renew",),
}
"""By the beginning of tests' names: what they call in another process, unseen by mutmut."""

# Failing examples are not shrunk: nobody reads them.
settings.register_profile(
    "mutants", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests last: most mutants are killed before."""
    known = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    items.sort(key=lambda item: (known.get(item.nodeid, 0.0) > SLOW_SECONDS, str(item.path)))


def pytest_collection_finish() -> None:
    """Forget the calls made by imports: mutmut would ascribe them to the first test."""
    state()._stats.clear()  # noqa: SLF001 - mutmut has no other way


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Record what a test calls in another process."""
    for beginning, functions in ELSEWHERE.items():
        if get_mutant_under_test() == "stats" and item.name.startswith(beginning):
            for function in functions:
                record_trampoline_hit(function)
