"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands."""

from resilience.cli.breakers import breaker
from resilience.cli.commands import resilience
from resilience.cli.consistency import consistency
from resilience.cli.dead import dead
from resilience.cli.flags import brownout, flag
from resilience.cli.health import health
from resilience.cli.holds import hold, holds, release
from resilience.cli.ledger import ledger
from resilience.cli.relay import relay
from resilience.cli.status import status
from resilience.cli.topology import topology

ORDERS = (breaker, brownout, flag, hold, release)
for command in (*ORDERS, consistency, dead, health, holds, ledger, relay, status, topology):
    resilience.add_command(command)

__all__ = ["resilience"]
