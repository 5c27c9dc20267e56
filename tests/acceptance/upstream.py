"""An upstream service as a test uses it: a real process, its fault, its statistics."""

import smtplib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import httpx

from demo.upstreams.server import READY
from resilience.testing.ports import free_port
from resilience.testing.process import ServerProcess, import_path
from resilience.testing.waiting import wait_until

ONE_REQUEST = httpx.Limits(max_keepalive_connections=0)
"""Of each connection: a server may close one that is kept just when the next request is sent."""
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A running service.

    Attributes:
        process: The process behind it.
        http: Reaches the service, and its control surface; for mail the latter only.
        port: Where the service speaks its own protocol.
    """

    process: ServerProcess
    http: httpx.Client
    port: int

    def put_fault(self, mode: str, **options: float) -> None:
        """Break the service, or repair it."""
        self.http.put("/fault", json={"mode": mode, **options}).raise_for_status()

    def lift_fault(self) -> None:
        """Let the service answer again."""
        self.http.delete("/fault").raise_for_status()

    def await_waiting(self, calls: int) -> None:
        """Wait until the fault holds exactly so many calls."""
        wait_until(
            lambda: self.http.get("/stats").json()["waiting"] == calls,
            PATIENCE_SECONDS,
            f"the fault holds {calls} calls",
        )


@contextmanager
def running(service: str, directory: Path) -> Iterator[Upstream]:
    """Run a service, with its log in *directory*, until the end of the block."""
    port = http_port = free_port()
    arguments = ["--port", str(port)]
    if service == "mail":
        http_port = free_port()
        arguments += ["--control-port", str(http_port)]
    process = ServerProcess(
        [sys.executable, "-m", "demo.upstreams", service, *arguments],
        ready=READY,
        log_path=directory / f"{service}.log",
        env={"PYTHONPATH": import_path()},
    )
    process.start()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{http_port}", timeout=PATIENCE_SECONDS, limits=ONE_REQUEST
        ) as http:
            yield Upstream(process=process, http=http, port=port)
    finally:
        process.stop()


def send(mail: Upstream, subject: str, to: str = "ann@shop.example") -> None:
    """Send one message over SMTP; raises what smtplib raises."""
    message = EmailMessage()
    message["From"] = "shop@shop.example"
    message["To"] = to
    message["Subject"] = subject
    message["Message-ID"] = f"<{subject}@shop.example>"
    message.set_content("Your order is on its way.\n")
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=PATIENCE_SECONDS) as client:
        client.send_message(message)
