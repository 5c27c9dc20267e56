"""Apps that find the servers of one test or module of tests, whichever they used before."""

import importlib
import sys
import threading
from types import ModuleType

import pytest
from celery import Celery


def imported_anew(patch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Import the module *name* as if it had never been imported, until *patch* is undone.

    It reads the addresses of its servers from the environment when it is imported. A runner may run
    a module of tests twice, with other tests in between: each time with servers of its own.
    """
    patch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def forget_servers() -> None:
    """Let the app of each module of the tests connect anew, as its settings say by then.

    Celery keeps an app's result backend and pools of connections when its settings change.
    """
    for name, module in sys.modules.copy().items():
        app = getattr(module, "app", None) if name.startswith("tests.") else None
        if isinstance(app, Celery):
            app._local = threading.local()  # noqa: SLF001 - each thread's backend is in there
            app._backend_cache = app._pool = app.amqp._producer_pool = None  # noqa: SLF001
