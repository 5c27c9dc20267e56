"""An app with calls of which each has one mistake (`MISTAKES`), and the same without (`SOUND`)."""

from pathlib import Path
from typing import Any

from celery import Celery
from tasks import WAIT, task

from resilience import (
    Dependency,
    FanOut,
    Level,
    Outcome,
    Resilience,
    Settings,
    TimeoutBudget,
    fallback,
    part,
)
from resilience.chaos import Call

app = Celery("planted", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
resilience = Resilience(
    app,
    dependencies=[
        Dependency("users", timeout=0.4, concurrency=2, slots=2),
        Dependency("prices", timeout=0.4, concurrency=2, max_queue=5),
    ],
)


def charges_file() -> Path:
    """Return the file that has a line for each charge."""
    directory = Settings.from_environment().runtime_directory
    assert directory is not None
    return directory / "charges"


def charges() -> int:
    """Return how many charges there have been."""
    return len(charges_file().read_text().splitlines()) if charges_file().exists() else 0


def take_money() -> str:
    """Charge somebody, whoever asks and however often."""
    with charges_file().open("a") as file:
        file.write("charged\n")
    return "charged"


def again() -> str:
    """Ask the users' service once more."""
    answer: str = resilience.pipeline("users", name="again").call(str, "ann")
    return answer


user = task("users", "user")
price = task("prices", "price")
no_last_step = task("users", "no_last_step", fallbacks=[fallback.stale(max_age=60)])
never_cached = task("users", "never_cached", fallbacks=[fallback.cached("planted:never")])
same_dependency = task("users", "same_dependency", fallbacks=[fallback.call(again)])
charged_again = task(
    "users",
    "charged_again",
    take_money,
    autoretry_for=(Exception,),
    retry_kwargs={"max_retries": 2, "countdown": 0},
)
charged = task("users", "charged", take_money)
early = task("users", "early", acks_late=False)
chained = task(
    "users", "chained", fallbacks=[fallback.stale(max_age=60), fallback.static("nobody")]
)


def unmarked() -> object:
    """Return an empty answer in place of an error, and do not say so."""
    try:
        return {"user": user.delay().get(timeout=WAIT)}
    except Exception:  # noqa: BLE001 - that is the mistake
        return {}


def half_marked() -> object:
    """Say how good an answer is, and neither why nor whose fault that is."""
    try:
        return Outcome(value=user.delay().get(timeout=WAIT))
    except Exception:  # noqa: BLE001 - any failure
        return Outcome(value=None, level=Level.REDUCED)


def one_after_the_other() -> object:
    """Ask two services, each with its whole timeout."""
    return [_or_none(user), _or_none(price)]


def _or_none(one: Any) -> object:  # noqa: ANN401 - a task
    try:
        return one.delay().get(timeout=WAIT)
    except Exception:  # noqa: BLE001 - any failure
        return None


def within_one_budget() -> object:
    """Ask two services within one budget."""
    with TimeoutBudget(0.6) as budget:
        whole = FanOut(user=part(user.s(), required=True), price=part(price.s()))
        return whole.apply_async(budget=budget.remaining()).get()


_failed: list[bool] = []


def sulking() -> object:
    """Never ask again once it has failed."""
    if _failed:
        raise ConnectionError
    try:
        return user.delay().get(timeout=WAIT)
    except Exception:
        _failed.append(True)
        raise


MISTAKES = {
    "no last step": Call(no_last_step),
    "never cached": Call(never_cached),
    "same dependency": Call(same_dependency),
    "required by mistake": Call(
        FanOut(user=part(user.s(), required=True), price=part(price.s(), required=True)),
        budget=1.0,
        worst=Level.REDUCED,
        required=["users"],
    ),
    "charged again": Call(charged_again, effects=charges),
    "unmarked": Call(unmarked),
    "half marked": Call(half_marked),
    "one after the other": Call(one_after_the_other, budget=0.7),
    "early": Call(early),
    "sulking": Call(sulking, required=["users"]),
}
SOUND = {
    "chained": Call(chained),
    "user": Call(user),
    "charged": Call(charged, effects=charges),
    "page": Call(
        FanOut(user=part(user.s(), required=True), price=part(price.s())),
        budget=1.0,
        worst=Level.REDUCED,
        required=["users"],
    ),
    "within one budget": Call(within_one_budget, budget=0.6, required=["users"]),
}
