"""An adopted app that replaces Celery's hooks and hands nothing on; tests import `app`.

Where the servers and the ledger are is in variables of the environment.
"""

import os
from collections.abc import Callable
from threading import Event
from typing import Any

import redis
from celery import Celery

from resilience.dependency import Dependency
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "users", "mail", "mail.retry")
SLOW_SECONDS = 6.0
HOOKS = ("on_failure", "on_success", "on_retry", "after_return", "before_start")


def note(name: str) -> Callable[..., None]:
    """Return a hook that notes the *name* of what calls it, and does nothing else."""

    def hook(self: Any, *_: object, **__: object) -> None:  # noqa: ANN401
        with redis.Redis.from_url(ENV["DESK_URL"]) as client:
            client.rpush(f"hooks:{self.name}", name)

    return hook


def slow(*_: object, **__: object) -> None:
    """Take longer than anybody shall wait."""
    Event().wait(SLOW_SECONDS)


def broken(*_: object, **__: object) -> None:
    """Fail, as a hook that calls a service which is away."""
    text = "the hook failed"
    raise ConnectionResetError(text)


def shout(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return what an annotation puts around a `__call__`."""

    def around(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return f"{call(*args, **kwargs)}!"

    return around


app: Celery[Any] = Celery(
    "hooks",
    broker=ENV["BROKER_URL"],
    backend=ENV["DESK_URL"],
    task_cls=ResilientTask,
    set_as_current=False,
)
app.conf.task_annotations = {
    "annotated": {name: note(name) for name in HOOKS},
    "shouting": {"@__call__": shout},
}
Resilience(
    app,
    dependencies=[
        Dependency("users", timeout=5, breaker=None),
        Dependency(
            "mail",
            breaker=None,
            retry=RetryPolicy(max_attempts=2, base_seconds=0.05),
            retry_share=None,
        ),
    ],
    settings=Settings(
        store_url=ENV["DESK_URL"], store_timeout_seconds=2, ledger_url=ENV["LEDGER_URL"]
    ),
)


class Mixin:
    """What an app mixes into its tasks."""

    on_failure = on_success = on_retry = after_return = before_start = note("mixed in")


class Mixed(Mixin, ResilientTask):
    """A task class behind a mixin."""

    abstract = True


class Slow(ResilientTask):
    """Hooks that take long, behind the body."""

    abstract = True
    on_failure = on_success = after_return = slow


class Broken(ResilientTask):
    """Hooks that fail, behind the body."""

    abstract = True
    on_failure = on_success = after_return = broken


class Unready(ResilientTask):
    """A hook that fails, before the body."""

    abstract = True
    before_start = broken


class Changing(ResilientTask):
    """A call that changes what the body returned."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return twice the value."""
        return super().__call__(*args, **kwargs) * 2


class Late(ResilientTask):
    """A call that fails behind the body."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run the body, and fail."""
        super().__call__(*args, **kwargs)
        broken()


class Again(ResilientTask):
    """A call that retries what failed."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run the body; once more, if it fails."""
        try:
            return super().__call__(*args, **kwargs)
        except ConnectionError as error:
            if self.request.retries:
                return "recovered"
            raise self.retry(exc=error, countdown=0) from None


class UnreadyMail(FireAndForgetTask):
    """A hook that fails before the body of a job that the ledger keeps."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Note that the job began, and fail."""
        note("began")(self)
        broken()


class FailingMail(FireAndForgetTask):
    """A call that fails before the body of a job that the ledger keeps."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Note that the job began, and fail."""
        note("began")(self)
        broken()
        return super().__call__(*args, **kwargs)


def fail() -> None:
    """Fail as a dependency that is away."""
    text = "away"
    raise ConnectionError(text)


def succeed() -> str:
    """Answer."""
    return "done"


BASES: dict[str, Any] = {
    "annotated": ResilientTask,
    "of_the_app": app.Task,
    "mixed": Mixed,
    "slow": Slow,
    "broken": Broken,
    "unready": Unready,
    "late": Late,
}
"""Tasks whose hooks are replaced; all fail."""
for name, base in BASES.items():
    body = succeed if name in {"unready", "late"} else fail
    app.task(base=base, dependency="users", name=name, shared=False)(body)
app.task(base=Slow, dependency="users", name="slow_success", shared=False)(succeed)
app.task(base=Broken, dependency="users", name="broken_success", shared=False)(succeed)
app.task(base=Changing, dependency="users", name="changing", shared=False)(succeed)
app.task(base=Again, dependency="users", name="again", shared=False)(fail)
app.task(dependency="users", name="shouting", shared=False)(succeed)
app.task(base=UnreadyMail, dependency="mail", name="unready_mail", shared=False)(succeed)
app.task(base=FailingMail, dependency="mail", name="failing_mail", shared=False)(succeed)
