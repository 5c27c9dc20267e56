"""Chaos: faults that are guarded, calls that fail, a fault proxy, proofs of what degrades."""
