"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands."""

from resilience.cli.breakers import breaker
from resilience.cli.commands import resilience
from resilience.cli.dead import dead
from resilience.cli.holds import hold, holds, release
from resilience.cli.ledger import ledger
from resilience.cli.relay import relay

for command in (breaker, dead, hold, holds, ledger, relay, release):
    resilience.add_command(command)

__all__ = ["resilience"]
