"""Fallback chains: increasingly degraded answers, each designed."""

from resilience.fallback.chain import Chain, Drill, check_chain, drill
from resilience.fallback.drills import drills_of
from resilience.fallback.progress import Progress
from resilience.fallback.steps import (
    Call,
    Entry,
    FunctionStep,
    StaticStep,
    Step,
    cached,
    call,
    stale,
    static,
)

__all__ = [
    "Call",
    "Chain",
    "Drill",
    "Entry",
    "FunctionStep",
    "Progress",
    "StaticStep",
    "Step",
    "cached",
    "call",
    "check_chain",
    "drill",
    "drills_of",
    "stale",
    "static",
]
