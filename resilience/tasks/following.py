"""Settings of an adopted app whose safe defaults depend on its broker."""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, Final

from celery import Celery
from celery.app.utils import Settings as CelerySettings

from resilience.broker.addresses import split_urls
from resilience.broker.transports import on_rabbitmq, transport_of
from resilience.compat import is_set, named_as
from resilience.settings import Settings
from resilience.tasks.defaults import (
    RABBITMQ_DEFAULTS,
    safe_defaults,
    safe_result_options,
    safe_transport_options,
)

FOLLOWING: Final = frozenset(
    {
        "broker_transport_options",
        "result_backend_transport_options",
        "broker_connection_retry_on_startup",
        *RABBITMQ_DEFAULTS,
    }
)


class Following(CelerySettings):
    """Computes some settings when they are read, from the others as they are at that moment.

    An app may name its broker after its configuration was read, and more than once. What the app
    sets itself holds, and its transport options are mixed with ours key by key. These settings are
    read when something connects, never for each job.
    """

    _app: ClassVar[Celery[Any]]
    _operator: ClassVar[Settings]

    @property
    def broker_transport_options(self) -> MutableMapping[str, Any]:
        """The app's own options, completed with those that are safe for its broker."""
        conf: Any = self
        alternates = len(split_urls(conf.broker_write_url)) - 1
        return self._mixed(
            "broker_transport_options",
            safe_transport_options(transport_of(self._app), alternates, self._operator),
        )

    @property
    def result_backend_transport_options(self) -> MutableMapping[str, Any]:
        """The app's own options, completed with ours."""
        return self._mixed("result_backend_transport_options", safe_result_options())

    @property
    def broker_connection_retry_on_startup(self) -> bool:
        """Whether a worker waits for its broker at the start; by default, as it does later."""
        conf: Any = self
        own = conf["broker_connection_retry_on_startup"]
        return bool(conf.broker_connection_retry if own is None else own)

    @property
    def control_queue_exclusive(self) -> bool:
        """Whether a worker's control queue belongs to its connection alone."""
        return self._of_rabbitmq("control_queue_exclusive")

    @property
    def control_queue_durable(self) -> bool:
        """Whether a worker's control queue outlives the broker."""
        return self._of_rabbitmq("control_queue_durable")

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - as Celery's
        """Return the setting *key*, or *default* if there is none."""
        if key in FOLLOWING:
            return getattr(self, key)
        return super().get(key, default)

    def _mixed(self, name: str, ours: Mapping[str, Any]) -> MutableMapping[str, Any]:
        conf: Any = self
        own = conf[name]
        # What the app changes in place is changed in its own options.
        return ChainMap({} if own is None else own, dict(ours))

    def _of_rabbitmq(self, name: str) -> bool:
        conf: Any = self
        # Celery refuses some pairs of these: an app that sets one of them decides on all.
        own = any(is_set(conf, one) for one in RABBITMQ_DEFAULTS)
        value = conf[name] if own or not on_rabbitmq(self._app) else RABBITMQ_DEFAULTS[name]
        return bool(value)


def follow(app: Celery[Any], settings: Settings) -> None:
    """Let the configuration of *app*, read already or later, compute these settings."""
    followed = type(Following.__name__, (Following,), {"_app": app, "_operator": settings})
    object.__setattr__(app.conf, "__class__", followed)  # its own `__setattr__` makes settings


def apply_defaults(app: Celery[Any], settings: Settings) -> None:
    """Give *app*, whose configuration was just read, the defaults that keep its jobs safe.

    They are below all that the app sets, now or later, and above what Celery ships.
    """
    conf: Any = app.conf
    defaults = named_as(conf.maps[-1], safe_defaults(settings))
    # `add_defaults` would put them above what the app reads from an object.
    for layers in (conf.maps, conf.defaults):
        layers.insert(-1, defaults)
    follow(app, settings)  # its configuration may be another object than before
