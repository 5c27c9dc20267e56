"""`celery -A app resilience metrics`: the metrics of the fleet for Prometheus."""

from contextlib import suppress

import click

from resilience.cli.words import say
from resilience.tasks.resilience import Resilience

PORT = 9540
READY_SECONDS = 5.0
"""Longest wait for all sources before the first scrape."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.pass_context
def metrics(context: click.Context, port: int, address: str) -> None:
    """Serve the metrics of the whole fleet on /metrics until Ctrl-C.

    Any number of these may run; each shows all there is. Nobody is asked who scrapes.
    """
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an extra

    from resilience.monitor.scrape import expose  # noqa: PLC0415 - imports it, too

    registry = CollectorRegistry()
    scrape = expose(Resilience.of(context.obj.app), registry)
    scrape.ready.wait(READY_SECONDS)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        msg = f"cannot listen on {address}:{port} ({error.strerror}); choose another --port"
        raise click.ClickException(msg) from error
    say(f"metrics on http://{address}:{server.server_port}/metrics")
    with suppress(KeyboardInterrupt):
        thread.join()
