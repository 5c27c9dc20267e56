"""A module of somebody who has never heard of the library: an HTTP API, Redis, SQL and mail.

Each part of the page is there or missing; what fails otherwise is a mistake.
"""

import smtplib
from contextlib import closing
from dataclasses import dataclass, field
from email.message import EmailMessage

import httpx
import redis
import requests
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError


@dataclass
class Bulletin:
    """The page, and where its parts come from."""

    weather_url: str
    cache: redis.Redis
    database: Engine
    mail_address: tuple[str, int]
    unsent: list[str] = field(default_factory=list)

    def page(self, city: str) -> dict[str, object]:
        """Return what there is, and what is missing."""
        parts = {
            "weather": self._weather(),
            "news": self._news(),
            "last": self._last(city),
            "readers": self._readers(),
            "mailed": self._mailed(city),
        }
        return {**parts, "missing": {name for name, part in parts.items() if part is None}}

    def _weather(self) -> str | None:
        try:
            return httpx.get(self.weather_url).text
        except httpx.TransportError:
            return None

    def _news(self) -> str | None:
        try:
            return requests.get(self.weather_url, timeout=60).text
        except requests.ConnectionError:
            return None

    def _last(self, city: str) -> str | None:
        try:
            with self.cache.pipeline() as pipe:
                before, _ = pipe.get("city").set("city", city).execute()
                return str(before or self.cache.get("city"))
        except redis.ConnectionError:
            return None

    def _readers(self) -> int | None:
        try:
            with self.database.connect() as connection:
                return connection.execute(text("SELECT 3")).scalar_one()
        except OperationalError:
            return None

    def _mailed(self, city: str) -> bool | None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "us@town", "you@town", city
        try:
            with closing(smtplib.SMTP(*self.mail_address)) as client:
                client.send_message(message)
        except (ConnectionRefusedError, smtplib.SMTPServerDisconnected):
            self.unsent.append(city)
            return None
        return True
