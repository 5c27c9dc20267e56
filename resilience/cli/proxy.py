"""`celery -A app resilience proxy`: a TCP proxy with faults, steered over Toxiproxy's HTTP API."""

import asyncio
import signal
from pathlib import Path
from random import Random

import click

from resilience.chaos.proxy.api import Api, parse_orders
from resilience.chaos.proxy.http import BODY_BYTES_MAX, HttpServer
from resilience.chaos.proxy.listener import join_address
from resilience.chaos.proxy.proxies import Proxies, ProxyOrder
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
    orders = read_config(config) if config else []
    asyncio.run(serve(host, port, orders, Random(seed)))  # noqa: S311 - no secret


def read_config(path: Path) -> list[ProxyOrder]:
    """Return the proxies that a file asks for.

    Raises:
        ConfigurationError: It is no JSON, larger than a MiB, or asks for what cannot be.
    """
    try:
        with path.open("rb") as file:
            return parse_orders(file.read(BODY_BYTES_MAX))
    except (OSError, ConfigurationError) as error:
        msg = f"--config {path}: {error}"
        raise ConfigurationError(msg) from error


async def serve(host: str, port: int, orders: list[ProxyOrder], random: Random) -> None:
    """Serve the API and its proxies until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: A proxy cannot be created, or the API cannot listen there.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    proxies = Proxies(random)
    server = HttpServer(Api(proxies).answer)
    try:
        async for created in proxies.populate(orders):
            click.echo(f"proxy {created.name}: {created.listen} → {created.upstream}")
        address = await server.start(join_address(host, port))
        click.echo(f"API of Toxiproxy on http://{address}")
        await stopped.wait()
    finally:
        await server.stop()
        await proxies.close()
