"""Chaos: faults that are guarded, calls that fail, a fault proxy, proofs of what degrades."""

from typing import TYPE_CHECKING

from resilience.exports import exported_from

if TYPE_CHECKING:
    from resilience.chaos.proving.call import Call
else:
    __getattr__ = exported_from(__name__, {"resilience.chaos.proving.call": ("Call",)})

__all__ = ["Call"]
