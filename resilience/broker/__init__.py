"""What kombu's transports lack for a job to survive a kill."""

from resilience.broker.channel import SafeChannel
from resilience.broker.connection import SafeConnection
from resilience.broker.unacked import CRASHES_HEADER

__all__ = ["CRASHES_HEADER", "SafeChannel", "SafeConnection"]
