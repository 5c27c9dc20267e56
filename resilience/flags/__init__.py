"""Features that can be shed to save the rest of the app."""

from resilience.flags.decision import Decision, Source
from resilience.flags.feature import Feature, Features
from resilience.flags.flags import Flags
from resilience.flags.intent import FollowProvider
from resilience.flags.syncing import sync_orders

__all__ = [
    "Decision",
    "Feature",
    "Features",
    "Flags",
    "FollowProvider",
    "Source",
    "sync_orders",
]
