"""`celery -A app resilience proxy`: a TCP proxy with faults, steered over Toxiproxy's HTTP API."""

import signal
import threading
from pathlib import Path

import click

from resilience.chaos.proxy.addresses import join_address
from resilience.chaos.proxy.api import BODY_BYTES_MAX, ApiServer, Proxies, parse_json
from resilience.cli.words import say
from resilience.errors import ConfigurationError

PORT = 8474


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of the API; 0 picks a free one.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with an array of proxies to create, as for POST /populate.",
)
@click.option("--seed", type=int, help="For toxicity, jitter and sizes; by default random.")
def proxy(host: str, port: int, config: Path | None, seed: int | None) -> None:
    """Run TCP proxies that make a network slow, narrow or broken, until Ctrl-C.

    The HTTP API is that of Toxiproxy 2.12, whose clients work unchanged. It has no
    authentication, so let it listen only where tests can reach it.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    proxies = Proxies(seed)
    try:
        if config is not None:
            populate(proxies, config)
        with ApiServer(join_address(host, port), proxies) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            say(f"API of Toxiproxy on http://{server.address}")
            stopped.wait()
            server.shutdown()
    finally:
        proxies.close()


def populate(proxies: Proxies, path: Path) -> None:
    """Create the proxies that a file asks for.

    Raises:
        ConfigurationError: It is no JSON, larger than a MiB, or asks for what cannot be.
    """
    try:
        with path.open("rb") as file:
            for created in proxies.populate(parse_json(file.read(BODY_BYTES_MAX))):
                say(f"proxy {created.name}: {created.listen} → {created.upstream}")
    except (OSError, ConfigurationError) as error:
        msg = f"--config {path}: {error}"
        raise ConfigurationError(msg) from error
