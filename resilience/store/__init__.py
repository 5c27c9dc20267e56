"""The shared store: Redis or Valkey, for what is fast and can be rebuilt."""

from resilience.store.answers import Answer, Answers
from resilience.store.connection import Store

__all__ = ["Answer", "Answers", "Store"]
