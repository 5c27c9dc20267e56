"""An app with calls of which each has one mistake (`MISTAKES`), and the same without (`SOUND`).

No dependency is there: the bodies of the tasks answer by themselves, and the faults do the rest.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, shared_task

from resilience import (
    BreakerPolicy,
    Dependency,
    FanOut,
    FireAndForgetTask,
    Level,
    Outcome,
    Resilience,
    ResilientTask,
    RetryPolicy,
    Settings,
    TimeoutBudget,
    fallback,
    part,
)
from resilience.chaos import Call

TIMEOUT = 0.4
WAIT = 10.0

app = Celery("planted", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
resilience = Resilience(
    app,
    dependencies=[
        Dependency("users", timeout=TIMEOUT, concurrency=2),
        Dependency("prices", timeout=TIMEOUT, concurrency=2, max_queue=5),
        Dependency("slow", timeout=2.0, concurrency=2, slots=2),
        Dependency("untimed", timeout=None, concurrency=2),
        Dependency("deaf", timeout=TIMEOUT, breaker=BreakerPolicy(ignore=(Exception,))),
        Dependency("mail", timeout=TIMEOUT, retry=RetryPolicy(base_seconds=0.1), concurrency=2),
    ],
)
app.conf.result_extended = True


def ledger_of_charges() -> Path:
    """Return the file that has a line for each charge."""
    directory = Settings.from_environment().runtime_directory
    assert directory is not None
    return directory / "charges"


def charges() -> int:
    """Return how many charges there have been."""
    file = ledger_of_charges()
    return len(file.read_text().splitlines()) if file.exists() else 0


def take_money() -> str:
    """Charge somebody, whoever asks and however often."""
    with ledger_of_charges().open("a") as file:
        file.write("charged\n")
    return "charged"


def again() -> str:
    """Ask the users' service once more."""
    answer: str = resilience.pipeline("users", name="again").call(str, "ann")
    return answer


def task(
    dependency: str,
    name: str,
    body: Callable[[], object] | None = None,
    **options: Any,  # noqa: ANN401 - of a task
) -> Any:  # noqa: ANN401 - a task
    """Declare a task that answers by itself."""

    def run() -> object:
        return body() if body is not None else name

    options.setdefault("base", ResilientTask)
    return shared_task(name=f"planted.{name}", dependency=dependency, **options)(run)


user = task("users", "user")
price = task("prices", "price")
untimed = task("untimed", "untimed")
deaf = task("deaf", "deaf")
slow = task("slow", "slow")
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
early = task("users", "early", acks_late=False, acks_on_failure_or_timeout=True)
plain_mail = task("mail", "plain_mail")
mail = task("mail", "mail", base=FireAndForgetTask)
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


def mail_in_passing() -> str:
    """Publish a job that nobody waits for, and that nobody keeps."""
    plain_mail.delay()
    return "done"


def mail_for_sure() -> str:
    """Publish a job that the ledger keeps."""
    mail.fire()
    return "done"


def impatient() -> object:
    """Wait as long as the dependency's timeout says, which is longer than the budget."""
    return slow.delay().get(timeout=WAIT)


def one_after_the_other() -> object:
    """Ask two services, each with its whole timeout."""
    return [_or_none(user), _or_none(price)]


def within_one_budget() -> object:
    """Ask two services within one budget."""
    with TimeoutBudget(0.6) as budget:
        whole = FanOut(user=part(user.s(), required=True), price=part(price.s()))
        return whole.apply_async(budget=budget.remaining()).get()


def _or_none(one: Any) -> object:  # noqa: ANN401 - a task
    try:
        return Outcome(value=one.delay().get(timeout=WAIT))
    except Exception as error:  # noqa: BLE001 - any failure
        reason = type(error).__name__
        return Outcome(value=None, level=Level.REDUCED, reason=reason, dependency="users")


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
    "mail in passing": Call(mail_in_passing),
    "impatient": Call(impatient, budget=0.5, required=["slow"]),
    "one after the other": Call(one_after_the_other, budget=0.7),
    "untimed": Call(untimed),
    "deaf": Call(deaf),
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
    "mail for sure": Call(mail_for_sure),
    "mail": Call(mail),
    "within one budget": Call(within_one_budget, budget=0.6, required=["users"]),
    "slots": Call(slow, budget=3.0),
}
