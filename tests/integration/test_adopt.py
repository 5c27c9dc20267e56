"""Adopting an app: what it set stays as it is, whenever it sets it, and every bulkhead stands."""

import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task
from celery.concurrency.prefork import TaskPool

from resilience import fallback
from resilience.broker.addresses import find_store
from resilience.dependency import Dependency
from resilience.errors import AllFallbacksFailedError, ConfigurationError
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.worker.heartbeat import QuickHeartbeat
from tests.integration.apps.fresh import (
    PAYMENTS,
    URL,
    USERS,
    adopt,
    echo,
    new_app,
    nothing,
    queue_of,
    read,
)

HEARTBEAT_SECONDS = 10.0

OWN_TIMEOUT = 7
CELERYS_BEAT = 120
"""What Celery has by default, and apps may set."""

Configure = Callable[[Celery], object]


class OwnConfig:
    """What an app reads with config_from_object."""

    task_acks_late = False
    broker_heartbeat = CELERYS_BEAT
    broker_transport_options = {"socket_timeout": OWN_TIMEOUT}  # noqa: RUF012 - as users write it


class OldConfig:
    """The same in the words of Celery 3."""

    CELERY_ACKS_LATE = False
    BROKER_HEARTBEAT = CELERYS_BEAT
    BROKER_TRANSPORT_OPTIONS = {"socket_timeout": OWN_TIMEOUT}  # noqa: RUF012 - as users write it
    BROKER_URL = URL


class PrefixedConfig:
    """The same as Django projects write it."""

    CELERY_TASK_ACKS_LATE = False
    CELERY_BROKER_HEARTBEAT = CELERYS_BEAT
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": OWN_TIMEOUT}  # noqa: RUF012 - as users write it


OWN: dict[str, Any] = {
    "task_acks_late": False,
    "broker_heartbeat": CELERYS_BEAT,
    "broker_transport_options": {"socket_timeout": OWN_TIMEOUT},
}


def set_one_by_one(app: Celery) -> None:
    """Assign to attributes of the configuration."""
    for name, value in OWN.items():
        setattr(app.conf, name, value)


def beat_of(app: Celery) -> float:
    """Return how often a worker of *app* with a pool of processes lets RabbitMQ hear of it."""
    pool = TaskPool(limit=1, app=app)
    consumer = SimpleNamespace(amqheartbeat=app.conf.broker_heartbeat, pool=pool)
    QuickHeartbeat(consumer)
    return float(consumer.amqheartbeat)


def check_own(app: Celery) -> None:
    """Check that *app* has what it set, ours where it set nothing, and its bulkheads."""
    conf = app.conf
    assert conf.task_acks_late is False
    assert beat_of(app) == CELERYS_BEAT
    assert conf.worker_prefetch_multiplier == 1
    assert queue_of(app, "get_user") == "users"
    assert queue_of(app, "free") == conf.task_default_queue


@pytest.mark.parametrize("before_that", [nothing, read])
@pytest.mark.parametrize(
    "configure",
    [
        pytest.param(lambda app: app.conf.update(OWN), id="update"),
        pytest.param(set_one_by_one, id="attributes"),
        pytest.param(lambda app: app.config_from_object(OwnConfig), id="object"),
        pytest.param(lambda app: app.config_from_object(OldConfig), id="old-names"),
        pytest.param(
            lambda app: app.config_from_object(PrefixedConfig, namespace="CELERY"), id="namespace"
        ),
    ],
)
def test_own_settings_stay(configure: Configure, before_that: Configure) -> None:
    """Set before or after adoption, before or after Celery read them: the app's own settings hold.

    Transport options are mixed with ours key by key, but for those set when all was read already.
    """
    first, second, third = new_app(), new_app(), new_app()
    before_that(first)
    configure(first)
    adopt(first)
    before_that(second)
    adopt(second)
    configure(second)
    adopt(third)
    before_that(third)
    configure(third)

    for app in (first, second, third):
        check_own(app)
        assert app.conf.broker_transport_options["socket_timeout"] == OWN_TIMEOUT
    assert first.conf.broker_transport_options["socket_connect_timeout"] == 1.0


def test_worker_beats_quickly_where_the_app_says_nothing() -> None:
    """What Celery itself takes for the interval is nobody's wish."""
    app = new_app()

    adopt(app)

    assert app.conf.broker_heartbeat == CELERYS_BEAT
    assert beat_of(app) == HEARTBEAT_SECONDS


def test_own_settings_of_the_constructor_stay() -> None:
    """What is handed to `Celery(…)` counts as set by the app."""
    app = new_app(**OWN)

    adopt(app)

    check_own(app)
    assert app.conf.broker_transport_options["socket_timeout"] == OWN_TIMEOUT
    assert app.conf.broker_transport_options["socket_connect_timeout"] == 1.0


def test_queues_stay_when_the_app_is_configured_again() -> None:
    """A second source of configuration takes neither defaults nor bulkheads away."""
    app = new_app()
    adopt(app)
    read(app)

    app.config_from_object(OwnConfig)

    check_own(app)
    assert app.conf.task_serializer == "json"


def test_unknown_dependency_is_an_error_whatever_comes_first() -> None:
    """A task that names nobody's dependency is refused, before or after adoption."""
    before, after = new_app(), new_app()
    before.task(name="typo", shared=False, dependency="uzers")(echo)
    before.finalize()
    adopt(after)

    with pytest.raises(ConfigurationError, match=r"task typo .* 'uzers'; did you mean 'users'\? "):
        adopt(before)
    after.task(name="typo", shared=False, dependency="uzers")(echo)
    with pytest.raises(ConfigurationError, match=r"task typo .* 'uzers'; did you mean 'users'\? "):
        after.finalize()


@pytest.mark.parametrize("dependency", ["uzers", ["users"]], ids=repr)
def test_plain_task_with_an_unknown_dependency_is_an_error(dependency: object) -> None:
    """Also a task of Celery's own class is refused: by its worker at start, or when published."""
    app = new_app()
    adopted = adopt(app)
    app.task(name="typo", shared=False, base=Task, dependency=dependency)(echo)

    with pytest.raises(ConfigurationError, match="task typo names the unknown dependency"):
        app.tasks["typo"].apply_async()
    with pytest.raises(ConfigurationError, match="task typo names the unknown dependency"):
        adopted.check_tasks()


def test_only_an_app_can_be_adopted() -> None:
    """A name in its place is refused with what to write."""
    with pytest.raises(ConfigurationError, match="'shop' is no Celery app"):
        Resilience("shop", dependencies=[USERS])  # type: ignore[arg-type]  # what must not work


def test_app_that_could_not_be_adopted_is_as_before() -> None:
    """A refused declaration leaves no half of it behind: the mended one works."""
    app = new_app()
    app.task(name="typo", shared=False, dependency="later")(echo)
    app.finalize()
    read(app)
    with pytest.raises(ConfigurationError):
        adopt(app)
    with pytest.raises(ConfigurationError):
        adopt(app, USERS, Dependency("later", queue="celery"))

    adopt(app, USERS, Dependency("later"))

    assert queue_of(app, "get_user") == "users"


def test_app_is_adopted_once() -> None:
    """The second declaration is refused, and the first one stands."""
    app = new_app()
    first = adopt(app)

    with pytest.raises(ConfigurationError, match="adopted already"):
        adopt(app, PAYMENTS)

    assert Resilience.of(app) is first


def test_task_needs_no_adoption_without_a_dependency() -> None:
    """As plain task class it works with any app; a dependency needs one that declares it."""
    bare = new_app()

    assert bare.tasks["free"](1) == 1
    with pytest.raises(ConfigurationError, match="declares no dependencies"):
        bare.tasks["get_user"](1)
    with pytest.raises(ConfigurationError, match="declares no dependencies"):
        bare.tasks["get_user"].delay(1)


@pytest.mark.parametrize(
    ("options", "store_url"),
    [
        pytest.param({"backend": "redis://127.0.0.1:2/0"}, "127.0.0.1:2", id="result-backend"),
        pytest.param({"broker": "redis://127.0.0.1:3/0"}, "127.0.0.1:3", id="broker"),
        pytest.param({"backend": "rpc://"}, "127.0.0.1:1", id="first-that-is-a-redis"),
        pytest.param({"broker": "redis://127.0.0.1:4;redis://h:5"}, "127.0.0.1:4", id="failover"),
        pytest.param({"broker": ["amqp://h", "redis://127.0.0.1:6"]}, "127.0.0.1:6", id="list"),
        pytest.param(
            {"broker": "rediss://127.0.0.1:7?ssl_cert_reqs=CERT_NONE"}, "127.0.0.1:7", id="tls"
        ),
    ],
)
def test_store_is_found_where_the_app_has_a_redis(options: dict[str, Any], store_url: str) -> None:
    """Without a setting of its own the store is the result backend, or else the broker."""
    app = new_app(**options)

    adopted = Resilience(app, dependencies=[USERS], settings=Settings())

    where = adopted.store.client.connection_pool.connection_kwargs
    assert f"{where['host']}:{where['port']}" == store_url


def test_store_is_found_behind_a_socket() -> None:
    """What Celery calls `redis+socket://` is the store, too, with its database."""
    app = new_app(broker="redis+socket:///run/valkey.sock?virtual_host=3")

    adopted = Resilience(app, dependencies=[USERS], settings=Settings())

    where = adopted.store.client.connection_pool.connection_kwargs
    assert (where["path"], where["db"]) == ("/run/valkey.sock", 3)


def test_store_is_found_through_the_sentinels_of_the_broker() -> None:
    """Their addresses, the name of the primary and both passwords are what Celery was told."""
    options = {"master_name": "main", "sentinel_kwargs": {"password": "p&q"}}
    broker = "sentinel://:secret@one:26379/2;sentinel://two:26380"

    assert find_store(broker, options) == (
        "redis+sentinel://:secret@one:26379,two:26380/main/2?sentinel_password=p%26q"
    )
    assert find_store(broker, {}) is None


def test_store_is_behind_the_tls_of_the_broker() -> None:
    """Also if Celery was told of it beside the URL; what the URL says itself wins."""
    tls = {"ssl_cert_reqs": ssl.CERT_OPTIONAL, "ssl_ca_certs": "/etc/ca.crt", "ssl_keyfile": None}

    assert find_store("redis://:pw@one:1/2", {}, tls) == (
        "rediss://:pw@one:1/2?ssl_cert_reqs=optional&ssl_ca_certs=%2Fetc%2Fca.crt"
    )
    assert find_store("rediss://one?ssl_cert_reqs=CERT_NONE", {}, {"ssl_cert_reqs": 2}) == (
        "rediss://one?ssl_cert_reqs=none"
    )
    assert find_store("redis+socket:///run/one", {}, tls) == "unix:///run/one"


def test_pipeline_works_without_a_store() -> None:
    """An app without a Redis calls its dependencies all the same; fallbacks say what is missing."""
    app = new_app(broker="amqp://localhost", backend="rpc://")
    adopted = Resilience(app, dependencies=[USERS], settings=Settings())
    guarded = adopted.pipeline("users", name="parse", fallbacks=[fallback.stale(max_age=9)])

    assert guarded.call(echo, 1).value == 1
    with pytest.raises(AllFallbacksFailedError, match="RESILIENCE_STORE_URL"):
        guarded.call(int, "no number")
    with pytest.raises(ConfigurationError, match="RESILIENCE_STORE_URL"):
        _ = adopted.fan_in


def test_app_without_a_redis_is_told_what_to_set() -> None:
    """Nobody guesses a store: the error says which variable to set, and what was looked at."""
    app = new_app(broker="amqp://localhost", backend="rpc://")
    adopted = Resilience(app, dependencies=[USERS], settings=Settings())

    with pytest.raises(ConfigurationError, match=r"RESILIENCE_STORE_URL.*'rpc://"):
        _ = adopted.store
