"""Fixtures for all tests."""

import signal

pytest_plugins = ["resilience.testing.plugin"]


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C, so that fixtures stop the processes that they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
