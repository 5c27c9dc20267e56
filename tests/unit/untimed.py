"""Settings for tests over many examples."""

from hypothesis import HealthCheck, settings

untimed = settings(
    deadline=None,  # a busy machine is no failure
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
"""Decorates a test with `given`: enough examples for small inputs, however long each takes."""
