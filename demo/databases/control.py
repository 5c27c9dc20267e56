"""How the databases are broken and repaired over HTTP, as the upstream services are.

`PUT /primary/fault {"mode": "fail"}` kills the primary, `PUT /replication/fault {"mode": "hang"}`
holds back what the replica streams, and `{"mode": "ok"}` or DELETE repairs either.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.databases.servers import Pair, running_databases
from demo.upstreams.control import control_service
from demo.upstreams.fault import Fault, FaultMode, FaultSwitch

PARTS: Final = ("primary", "replication")
UNPROCESSABLE: Final = 422


class Faults:
    """Breaks and repairs the parts of running databases."""

    def __init__(self, databases: Pair) -> None:
        """Begin with all of *databases* well."""
        primary, link, _ = databases
        self._steps: Mapping[tuple[str, FaultMode], Callable[[], None]] = {
            ("primary", FaultMode.OK): primary.start,
            ("primary", FaultMode.FAIL): primary.kill,
            ("replication", FaultMode.OK): link.resume,
            ("replication", FaultMode.HANG): link.stall,
        }
        self._modes = dict.fromkeys(PARTS, FaultMode.OK)
        self._lock = asyncio.Lock()

    def mode(self, part: str) -> FaultMode:
        """Return what is wrong with *part*."""
        return self._modes[part]

    async def put(self, part: str, mode: FaultMode) -> None:
        """Do *mode* to *part*; returns when it is done.

        Raises:
            HTTPException: That cannot be done to this part.
        """
        step = self._steps.get((part, mode))
        if step is None:
            possible = ", ".join(mode for name, mode in self._steps if name == part)
            raise HTTPException(UNPROCESSABLE, f"mode: the {part} can be {possible}")
        async with self._lock:
            if self._modes[part] is not mode:
                await asyncio.to_thread(step)
                self._modes[part] = mode


def create_app(*, primary_port: int, replica_port: int) -> Starlette:
    """Return the HTTP side; the databases run on these ports while it lives."""

    @asynccontextmanager
    async def databases(app: Starlette) -> AsyncIterator[None]:
        running = running_databases(primary_port=primary_port, replica_port=replica_port)
        with running as started:
            app.state.faults = Faults(started)
            yield

    async def fault(request: Request) -> Response:
        faults: Faults = request.app.state.faults
        part = request.path_params["part"]
        if part not in PARTS:
            raise HTTPException(404)
        if request.method == "PUT":
            await faults.put(part, Fault.model_validate_json(await request.body()).mode)
        elif request.method == "DELETE":
            await faults.put(part, FaultMode.OK)
        return JSONResponse({"mode": faults.mode(part)})

    route = Route("/{part}/fault", fault, methods=["GET", "PUT", "DELETE"])
    return control_service(FaultSwitch(), [route], databases)
