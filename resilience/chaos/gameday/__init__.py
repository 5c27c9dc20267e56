"""Runs a game day: scheduled faults against a running app, and the promises that it must keep."""

from resilience.chaos.gameday.plan import Plan, read_plan

__all__ = ["Plan", "read_plan"]
