"""A fan-out of shared tasks that is declared before the app; prints what two threads get of it."""

import threading
from typing import Any

from celery import Celery, shared_task

from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import FanOut, Resilience, ResilientTask

URL = "redis://127.0.0.1:1/0"


@shared_task(name="get_user", base=ResilientTask, dependency="users")
def get_user(number: int) -> int:
    """Return the user with this number."""
    return number


ASK = FanOut(user=get_user.s(1))
app: Celery[Any] = Celery("shop", broker=URL)
Resilience(app, dependencies=[Dependency("users")], settings=Settings(store_url=URL))


def ask() -> None:
    """Print why the part is missing: there is no store."""
    print(ASK.apply_async(budget=1, on_complete=get_user.s()).get().reasons)  # noqa: T201 - the answer


if __name__ == "__main__":
    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
