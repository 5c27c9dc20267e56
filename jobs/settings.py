"""Where the shop finds what it depends on."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resilience import ConfigurationError

PREFIX = "SHOP_"

HttpUrl = Annotated[str, Field(pattern=r"^https?://")]


def _split(text: object) -> object:
    return text.split() if isinstance(text, str) else text


class ShopSettings(BaseSettings):
    """Settings, each an environment variable `SHOP_<NAME>`. No address has a default to get wrong.

    Attributes:
        broker_url: Broker, result backend and shared store: a Redis or Valkey.
        database_url: Any SQLAlchemy URL: of the primary, if there are replicas.
        database_replica_urls: The same of streaming replicas, with spaces in between; none: all is
            read from the primary. SQLite has none.
        users_url: The accounts.
        recommendations_url: The service that knows what to show to whom.
        payments_url: The payment provider.
        search_url: Ranking and spelling.
        mail_host: Host of the mail server, which speaks SMTP.
        mail_port: Its port.
        dwell_seconds: How long the controller waits between two features that it sheds or restores.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    broker_url: str
    database_url: str
    database_replica_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    users_url: HttpUrl
    recommendations_url: HttpUrl
    payments_url: HttpUrl
    search_url: HttpUrl
    mail_host: str
    mail_port: Annotated[int, Field(ge=1, le=65_535)]
    dwell_seconds: Annotated[float, Field(gt=0, le=3_600)] = 10.0

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            ConfigurationError: Variables are missing or wrong; the message names all of them.
        """
        try:
            return cls.model_validate({})
        except ValidationError as error:
            wrong = "; ".join(
                f"{PREFIX}{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}"
                for one in error.errors()
            )
            raise ConfigurationError(wrong) from error
