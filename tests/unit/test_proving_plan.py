"""Which faults a proof tries, and how bad it lets an answer be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import BreakerPolicy, Dependency, Level
from resilience.chaos.proving.plan import (
    KINDS,
    CallFacts,
    Kind,
    PartFacts,
    Planned,
    Touch,
    kinds_of,
    pairs,
    singles,
    worst_level,
)

NAMES = ("users", "prices", "mail", "search")
DEPENDENCIES = {name: Dependency(name) for name in NAMES}
levels = st.sampled_from(Level)
facts_of_parts = st.builds(PartFacts, worst=levels, required=st.booleans(), stale=st.booleans())


def call(**facts: object) -> CallFacts:
    """Return what is declared of a call."""
    return CallFacts(name="page", **facts)  # type: ignore[arg-type]


def touch(name: str = "users", **how: object) -> Touch:
    """Return how a dependency was called."""
    return Touch(dependency=name, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dependency", "how", "kind"),
    [
        pytest.param(Dependency("users", breaker=None), {}, "refused", id="no-breaker"),
        pytest.param(Dependency("users", on_open="hold"), {}, "refused", id="held"),
        pytest.param(Dependency("users"), {}, "full", id="no-limit"),
        pytest.param(Dependency("users", max_queue=3), {"job": False}, "full", id="no-job"),
        pytest.param(Dependency("users"), {}, "late", id="no-deadline"),
        pytest.param(Dependency("users"), {"worker": False}, "killed", id="in-the-caller"),
        pytest.param(Dependency("users"), {}, "cold", id="nothing-remembered"),
    ],
)
def test_fault_that_a_call_cannot_meet_is_not_planned(
    dependency: Dependency, how: dict[str, object], kind: Kind
) -> None:
    """A fault that could never strike is no run: a run whose fault does not strike fails."""
    everything: dict[str, object] = {"budget": 1.0, "remembered": True}
    able = Dependency("users", max_queue=3, breaker=BreakerPolicy())

    assert kind in kinds_of(touch(**everything), able)
    assert kind not in kinds_of(touch(**how), dependency)


@pytest.mark.parametrize(
    ("facts", "kind", "worst"),
    [
        pytest.param({"task": Level.FAILED}, "error", Level.FAILED, id="task-without-a-chain"),
        pytest.param({"task": Level.STATIC}, "error", Level.STATIC, id="end-of-the-chain"),
        pytest.param({"task": Level.FAILED}, "killed", Level.FULL, id="killed-runs-elsewhere"),
        pytest.param(
            {"task": Level.STATIC, "timed": True},
            "late",
            Level.FAILED,
            id="late-is-dropped",
        ),
        pytest.param(
            {"parts": {"user": PartFacts()}},
            "error",
            Level.REDUCED,
            id="optional-part",
        ),
        pytest.param(
            {"parts": {"user": PartFacts(worst=Level.STATIC)}},
            "error",
            Level.STATIC,
            id="optional-part-with-a-chain",
        ),
        pytest.param(
            {"parts": {"user": PartFacts(required=True)}},
            "error",
            Level.FAILED,
            id="required-part",
        ),
        pytest.param(
            {"parts": {"user": PartFacts(required=True, stale=True)}},
            "late",
            Level.STALE,
            id="required-part-that-is-remembered",
        ),
        pytest.param(
            {"parts": {"user": PartFacts(required=True, stale=True)}},
            "cold",
            Level.FAILED,
            id="required-part-that-is-forgotten",
        ),
        pytest.param({}, "error", Level.STATIC, id="function"),
        pytest.param({"required": ["users"]}, "error", Level.FAILED, id="function-that-needs-it"),
        pytest.param({"silent": ["users"]}, "error", Level.FULL, id="silent"),
    ],
)
def test_worst_level_is_what_is_declared(
    facts: dict[str, object], kind: Kind, worst: Level
) -> None:
    """An answer may be as bad as the chain, the part or the author says, and no worse."""
    assert worst_level(call(**facts), touch(), kind) is worst


def test_kept_job_changes_no_answer() -> None:
    """A job that the ledger keeps is accepted whatever its dependency does."""
    assert worst_level(call(), touch(kept=True), "error") is Level.FULL


@given(
    parts=st.dictionaries(st.sampled_from(NAMES), facts_of_parts, min_size=1),
    kind=st.sampled_from(KINDS),
    worst=levels,
)
def test_author_never_accepts_more_than_the_declarations_allow(
    parts: dict[str, PartFacts], kind: Kind, worst: Level
) -> None:
    """`worst` of a call makes the proof stricter, never laxer."""
    declared = worst_level(call(parts=parts), touch(), kind)

    assert worst_level(call(parts=parts, worst=worst), touch(), kind) == min(declared, worst)


@given(parts=st.dictionaries(st.sampled_from(NAMES), facts_of_parts, min_size=1))
def test_only_a_required_part_may_fail_the_response(parts: dict[str, PartFacts]) -> None:
    """A fan-out whose parts are optional never fails as a whole."""
    needed = any(one.required for one in parts.values())
    allowed = [worst_level(call(parts=parts), touch(), kind) for kind in KINDS]

    assert (
        needed
        or Level.FAILED not in allowed
        or any(one.worst is Level.FAILED and one.required for one in parts.values())
    )


@given(names=st.sets(st.sampled_from(NAMES)), kinds=st.sets(st.sampled_from(KINDS)))
def test_every_fault_of_every_dependency_is_tried_once(names: set[str], kinds: set[Kind]) -> None:
    """Not a sample: each fault that can strike has a run of its own."""
    touches = {name: touch(name, budget=1.0, remembered=True) for name in names}
    planned = [run.faults for run in singles(call(), touches, DEPENDENCIES, kinds)]

    assert sorted(planned) == sorted(
        (Planned(name, kind),) for name in names for kind in kinds if kind != "full"
    )


@given(
    parts=st.dictionaries(
        st.sampled_from(NAMES), st.frozensets(st.sampled_from("abc"), max_size=2), min_size=2
    ),
    data=st.data(),
)
def test_pairs_are_those_that_can_meet(
    parts: dict[str, frozenset[str]], data: st.DataObject
) -> None:
    """Pairs of one dependency, of different parts, and of calls never made together are left out.

    All others are tried, and the two together are all pairs there are.
    """
    touches = {name: touch(name, parts=some) for name, some in parts.items()}
    kinds: tuple[Kind, ...] = ("error", "hang")
    every = [Planned(name, kind) for name in touches for kind in kinds]
    tried_alone = data.draw(st.sets(st.sampled_from(every)))
    seen = {one: data.draw(st.sets(st.sampled_from(sorted(parts)))) for one in tried_alone}

    runs, pruned = pairs(call(), touches, seen, DEPENDENCIES, kinds)

    tried = {run.faults for run in runs}
    assert len(tried) == len(runs)
    assert len(runs) + pruned == len(every) * (len(every) - 1) // 2
    for one in every:
        for other in every:
            apart = parts[one.dependency] and parts[other.dependency]
            apart = apart and not parts[one.dependency] & parts[other.dependency]
            meet = one in seen or other in seen
            meet = meet and (one not in seen or other.dependency in seen[one])
            meet = meet and (other not in seen or one.dependency in seen[other])
            expected = one.dependency != other.dependency and meet and not apart
            assert ((one, other) in tried or (other, one) in tried) is expected


def test_fault_that_only_memory_survives_does_not_meet_a_cold_one() -> None:
    """A call that goes on because a stale answer stands in ends where nothing is remembered."""
    touches = {name: touch(name, remembered=True) for name in ("users", "prices")}
    seen: dict[Planned, set[str]] = {
        Planned("users", "error"): {"users", "prices"},
        Planned("users", "cold"): {"users"},
        Planned("prices", "error"): {"users", "prices"},
        Planned("prices", "cold"): {"users", "prices"},
    }

    runs, pruned = pairs(call(), touches, seen, DEPENDENCIES, ("error", "cold"))

    assert [run.faults for run in runs] == [(Planned("prices", "error"), Planned("users", "error"))]
    assert pruned == 5


def test_pair_may_end_as_badly_as_the_worse_of_its_faults() -> None:
    """Two faults together excuse what one of them excuses."""
    facts = call(required=["users"])
    touches = {name: touch(name) for name in ("users", "prices")}
    seen = {Planned(name, "error"): touches.keys() for name in touches}

    [run], _ = pairs(facts, touches, seen, DEPENDENCIES, ("error",))

    assert run.worst is Level.FAILED
