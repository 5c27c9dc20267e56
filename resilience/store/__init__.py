"""The shared store: Redis or Valkey, for what is fast and can be rebuilt."""

from resilience.store.answers import Answer, Answers
from resilience.store.connection import Store
from resilience.store.fanin import FanIn, Memory, Record, Slot
from resilience.store.release import Releases

__all__ = ["Answer", "Answers", "FanIn", "Memory", "Record", "Releases", "Slot", "Store"]
