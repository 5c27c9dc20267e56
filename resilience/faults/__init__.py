"""Faults that somebody ordered, to see what degrades: injected innermost, around what is called."""

from resilience.faults.fault import Fault, Kind
from resilience.faults.injector import Injector, fault_of

__all__ = ["Fault", "Injector", "Kind", "fault_of"]
