"""Circuit breakers that the whole fleet shares."""

from resilience.breaker.breaker import Breaker
from resilience.breaker.off import NoBreaker
from resilience.breaker.policy import BreakerPolicy
from resilience.breaker.state import Circuit, State

__all__ = ["Breaker", "BreakerPolicy", "Circuit", "NoBreaker", "State"]
