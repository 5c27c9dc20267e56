"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands."""

from resilience.cli.breakers import breaker
from resilience.cli.commands import resilience
from resilience.cli.dead import dead
from resilience.cli.health import health
from resilience.cli.holds import hold, holds, release
from resilience.cli.ledger import ledger
from resilience.cli.relay import relay
from resilience.cli.topology import topology

for command in (breaker, dead, health, hold, holds, ledger, relay, release, topology):
    resilience.add_command(command)

__all__ = ["resilience"]
