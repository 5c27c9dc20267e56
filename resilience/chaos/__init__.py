"""Chaos: faults that are guarded, random failures in tests, a fault proxy, and proofs of what degrades."""
