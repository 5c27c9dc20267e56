"""A game day: faults on a schedule against a running app, and the promises that it must keep."""

from resilience.chaos.gameday.plan import Plan, read_plan

__all__ = ["Plan", "read_plan"]
