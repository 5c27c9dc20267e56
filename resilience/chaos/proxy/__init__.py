"""A TCP proxy that makes a network slow, narrow or broken, steered as Toxiproxy is."""

from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.fault_proxy import FaultProxy

__all__ = ["FaultProxy", "ProxyError"]
