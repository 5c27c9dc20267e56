"""What the tests do between modules."""

import sys
from types import ModuleType

import pytest
from celery import Celery

from tests.fresh import forget_servers


def test_app_finds_the_servers_of_its_next_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a module that a runner runs twice waits for servers that have gone."""
    app = Celery(set_as_current=False)
    module = ModuleType("tests.some_app")
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def connect(port: int) -> set[int]:
        app.conf.update(
            broker_url=f"redis://127.0.0.1:{port}", result_backend=f"redis://127.0.0.1:{port}"
        )
        with app.pool.acquire() as pooled, app.producer_pool.acquire() as producer:
            return {
                app.backend.connparams["port"],
                pooled.port,
                producer.connection.port,
            }

    assert connect(1111) == {1111}
    forget_servers()
    assert connect(2222) == {2222}
