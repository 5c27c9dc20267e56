"""A primary and its replicas behind SQLAlchemy sessions that route themselves."""

from resilience.databases.databases import Databases
from resilience.databases.routing import RoutingSession

__all__ = ["Databases", "RoutingSession"]
