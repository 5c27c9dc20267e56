"""Caps on calls in flight."""

from resilience.bulkhead.renewal import Renewal
from resilience.bulkhead.slots import Slots

__all__ = ["Renewal", "Slots"]
