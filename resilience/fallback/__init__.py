"""Fallback chains: increasingly degraded answers, each designed."""

from resilience.fallback.progress import Progress
from resilience.fallback.steps import (
    Call,
    FunctionStep,
    StaticStep,
    Step,
    cached,
    call,
    check_chain,
    stale,
    static,
)

__all__ = [
    "Call",
    "FunctionStep",
    "Progress",
    "StaticStep",
    "Step",
    "cached",
    "call",
    "check_chain",
    "stale",
    "static",
]
