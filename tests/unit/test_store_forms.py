"""Forms of the store's URL: which are taken, and what is said of the others."""

import pytest
import redis
from celery import Celery

from resilience import ConfigurationError, Resilience, Settings
from resilience.store import Store


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://cache:26379",
        "sentinel://:secret@cache:26379/",
        "sentinel://:secret@cache:26379/shop/x",
        "redis+sentinel://:secret@cache:port/shop",
        "redis+sentinel://:secret@cache,,other/shop",
        "redis+cluster://:secret@cache:6379/1",
        "redis+cluster://:secret@",
        "redis+cluster://:secret@cache?sentinel_password=secret",
        "unix+cluster://:secret@/tmp/socket",
        "redis+other://:secret@cache",
        "sentinel://cache/shop?sentinel_password=secret&ssl_ca_certs=/none",
        "redis://:secret@cache?no_such_option=1",
        "rediss://:secret@cache?ssl_cert_reqs=sometimes",
    ],
)
def test_malformed_url_is_refused_at_declaration(url: str) -> None:
    """What cannot lead to a store is named, without the password."""
    with pytest.raises(ConfigurationError) as caught:
        Store(url, namespace="shop")

    assert repr(url.replace(":secret@", "***@").replace("=secret", "=***")) in str(caught.value)


@pytest.mark.parametrize(
    ("url", "tls", "options"),
    [
        ("valkey+sentinel://cache/shop", False, {"db": 0}),
        ("valkeys+cluster://[::1]:7000,cache", True, {"db": 0}),
        (
            "rediss+sentinel://user:secret@cache/shop/1?ssl_ca_certs=/etc/ca.pem",
            True,
            {"username": "user", "password": "secret", "db": 1, "ssl_ca_certs": "/etc/ca.pem"},
        ),
        ("rediss+cluster://user:secret@cache/0?socket_timeout=0.5", True, {"socket_timeout": 0.5}),
        ("sentinel://cache/shop?max_connections=9", False, {"max_connections": 9}),
    ],
)
def test_other_forms_are_taken(url: str, *, tls: bool, options: dict[str, object]) -> None:
    """TLS, other names and redis-py's own options go with every form."""
    store = Store(url, namespace="shop")
    pool = store.client.connection_pool
    given = {**pool.connection_kwargs, "max_connections": pool.max_connections}
    store.client.close()

    assert issubclass(pool.connection_class, redis.SSLConnection) is tls
    assert {name: given.get(name) for name in options} == options


@pytest.mark.parametrize("url", ["http://cache", "sentinel://cache:26379"])
def test_store_that_is_set_is_not_passed_over(url: str) -> None:
    """A store's address that cannot be used is an error, whatever Celery's result backend is."""
    app = Celery("shop", backend="redis://cache", set_as_current=False)

    with pytest.raises(ConfigurationError, match="store URL"):
        _ = Resilience(app, dependencies=[], settings=Settings(store_url=url)).store
