"""Chaos: faults that are guarded, a fault proxy, and proofs of what degrades."""
