"""How an upstream service is served."""

import socket
from typing import Final

import uvicorn
from starlette.applications import Starlette

from demo.upstreams.fault import FaultSwitch

HOST: Final = "127.0.0.1"
READY: Final = "ready on"
"""What the process prints, with the address of its HTTP side, once it can be called."""

_SHUTDOWN_SECONDS: Final = 3


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, switch: FaultSwitch) -> None:
        super().__init__(config)
        self._switch = switch

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"{READY} http://{self.config.host}:{self.config.port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A shutdown waits for the calls in flight, and those that hang would hang it.
        self._switch.lift()
        await super().shutdown(sockets)


def serve(app: Starlette, switch: FaultSwitch, *, port: int) -> None:
    """Serve *app* on the loopback until a signal stops the process.

    Calls that the fault holds are answered before the process ends.

    Raises:
        SystemExit: The port is taken, or the app could not start.
    """
    config = uvicorn.Config(
        app,
        host=HOST,
        port=port,
        loop="asyncio",
        http="h11",
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    _Server(config, switch).run()
