"""A real Valkey server as pytest-celery's broker or result backend.

Needs pytest-celery, and what `resilience.testing.valkey` needs.
"""

from pytest_celery import RedisContainer  # type: ignore[import-untyped]

from resilience.testing.ports import LOCALHOST
from resilience.testing.process import ProcessContainer
from resilience.testing.valkey import ValkeyProcess


class ValkeyContainer(RedisContainer):  # type: ignore[misc]  # pytest-celery has no types
    """A `ValkeyProcess` as broker or result backend of pytest-celery."""

    def __init__(self, server: ValkeyProcess) -> None:
        """Wrap *server*, which must be running when a test uses it."""
        super().__init__(ProcessContainer(server))
        self.server = server

    @property
    def hostname(self) -> str:
        """Address for workers and tests alike: both are on this machine."""
        return LOCALHOST

    @property
    def port(self) -> int:
        """TCP port, known before the server is up."""
        return self.server.port

    @property
    def url(self) -> str:
        """Address of database 0."""
        return self.server.url

    @property
    def host_url(self) -> str:
        """The same as `url`."""
        return self.server.url
