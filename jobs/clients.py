"""Clients of what the shop depends on: a set per process, each client made at first use.

None waits longer than the budget of the job that uses it: its own error comes before the cut.

Pool processes are forked from one that has used none, and find none: nothing is shared.
"""

import functools
import os
import smtplib
from email.message import EmailMessage
from typing import Any

import httpx

from jobs.dependencies import client_seconds
from jobs.settings import ShopSettings
from resilience.budget import client_timeout, limit_requests

IDLE_SECONDS = 2.0
"""An idle connection is closed before the service does that, lest a request meets its end."""
NOT_FOUND = 404


class Clients:
    """The clients of one process."""

    def __init__(self, settings: ShopSettings) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._http: dict[str, httpx.Client] = {}

    def http(self, dependency: str) -> httpx.Client:
        """Return the client of an HTTP service, which waits less than the dependency's timeout."""
        if dependency not in self._http:
            client = self._http[dependency] = httpx.Client(
                base_url=getattr(self._settings, f"{dependency}_url"),
                timeout=client_seconds(dependency),
                limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
            )
            limit_requests(client)
        return self._http[dependency]

    def send(self, message: EmailMessage) -> None:
        """Hand *message* to the mail server.

        Raises:
            smtplib.SMTPException: It was not taken.
            OSError: There is no server, or it does not answer.
        """
        host, port = self._settings.mail_host, self._settings.mail_port
        seconds = client_timeout(client_seconds("notifications"))
        with smtplib.SMTP(host, port, timeout=seconds) as smtp:
            smtp.send_message(message)

    def close(self) -> None:
        """Close every connection; what is used afterwards is opened again."""
        for client in self._http.values():
            client.close()
        self._http.clear()


def clients() -> Clients:
    """Return the clients of this process."""
    return _clients_of(os.getpid())


@functools.cache
def _clients_of(_pid: int) -> Clients:
    return Clients(ShopSettings.from_environment())


def fetch(dependency: str, path: str, **params: str) -> Any:  # noqa: ANN401 - the service's JSON
    """Return the JSON that an HTTP service has at *path*, None if it says that there is none.

    Raises:
        httpx.HTTPStatusError: It answered with another error; its Retry-After is in there.
        httpx.TransportError: It did not answer, or not in time.
    """
    response = clients().http(dependency).get(path, params=params)
    if response.status_code == NOT_FOUND:
        return None
    return response.raise_for_status().json()


def close_clients(**_: object) -> None:
    """Close the clients of this process; takes whatever a Celery signal brings."""
    clients().close()
