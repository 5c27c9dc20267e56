"""An app with features, and dependencies whose tasks answer differently when they are down."""

from celery import Celery, shared_task

from resilience import Dependency, Feature, FireAndForgetTask, Level, Resilience, ResilientTask
from resilience.fallback import static

app = Celery("features")
app.conf.update(task_default_queue="others")
Resilience(
    app,
    dependencies=[
        Dependency("ranking"),
        Dependency("users"),
        Dependency("mail"),
        Dependency("unused"),
    ],
    features=[
        Feature("search", level=Level.FAILED),
        Feature("search.ranking", level=Level.REDUCED, cost=0.05, depends_on=("ranking",)),
        Feature("search.spelling", level=Level.STALE, cost=0.01),
        Feature("beta", level=Level.REDUCED, default=False),
    ],
)


@shared_task(base=ResilientTask, dependency="ranking", fallbacks=[static([])])
def rank() -> list[int]:
    """Answer with an empty list when ranking is down."""
    return [1]


@shared_task(base=ResilientTask, dependency="users")
def load() -> str:
    """Fail when users is down."""
    return "ann"


@shared_task(base=FireAndForgetTask, dependency="mail")
def send() -> None:
    """Wait when mail is down."""
