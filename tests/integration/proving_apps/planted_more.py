"""More calls with a mistake each, of dependencies that are declared wrong, and of jobs."""

from celery import Celery
from tasks import WAIT, task

from resilience import (
    BreakerPolicy,
    Dependency,
    FireAndForgetTask,
    Resilience,
    RetryPolicy,
    fallback,
)
from resilience.chaos import Call

app = Celery("planted", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
resilience = Resilience(
    app,
    dependencies=[
        Dependency("slow", timeout=2.0, concurrency=2),
        Dependency("untimed", timeout=None, concurrency=2),
        Dependency("deaf", timeout=0.4, breaker=BreakerPolicy(ignore=(Exception,))),
        Dependency("mail", timeout=0.4, retry=RetryPolicy(base_seconds=0.1), concurrency=2),
    ],
)

slow = task("slow", "slow")
untimed = task("untimed", "untimed")
deaf = task("deaf", "deaf", fallbacks=[fallback.static("nobody")])
plain_mail = task("mail", "plain_mail")
mail = task("mail", "mail", base=FireAndForgetTask)


def impatient() -> object:
    """Wait as long as the dependency's timeout says, which is longer than the budget."""
    return slow.delay().get(timeout=WAIT)


def mail_in_passing() -> str:
    """Publish a job that nobody waits for, and that nobody keeps."""
    plain_mail.delay()
    return "done"


def mail_for_sure() -> str:
    """Publish a job that the ledger keeps."""
    mail.fire()
    return "done"


MISTAKES = {
    "impatient": Call(impatient, budget=0.5, required=["slow"]),
    "untimed": Call(untimed),
    "deaf": Call(deaf),
    "mail in passing": Call(mail_in_passing),
}
SOUND = {
    "mail for sure": Call(mail_for_sure),
    "mail": Call(mail),
    "slow": Call(slow, budget=3.0),
}
