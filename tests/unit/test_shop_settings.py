"""Where the shop finds its databases."""

import pytest

from jobs.settings import ShopSettings

ADDRESSES = {
    "broker_url": "redis://broker",
    "database_url": "postgresql+psycopg://primary/shop",
    "users_url": "http://users",
    "recommendations_url": "http://recommendations",
    "payments_url": "http://payments",
    "search_url": "http://search",
    "mail_host": "mail",
    "mail_port": "25",
}


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        pytest.param("", (), id="none"),
        pytest.param("postgresql://one/shop", ("postgresql://one/shop",), id="one"),
        pytest.param(
            " postgresql://one/shop  postgresql://two,three/shop ",
            ("postgresql://one/shop", "postgresql://two,three/shop"),
            id="two-one-of-them-with-two-hosts",
        ),
    ],
)
def test_replicas_are_named_with_spaces_in_between(
    text: str, urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is empty names none, as one that is not set."""
    for name, value in {**ADDRESSES, "database_replica_urls": text}.items():
        monkeypatch.setenv(f"SHOP_{name.upper()}", value)

    assert ShopSettings.from_environment().database_replica_urls == urls
