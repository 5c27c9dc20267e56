"""An app whose tasks are parts of features; workers and tests import `app`."""

import os

from celery import Celery

from resilience import (
    Dependency,
    Feature,
    FireAndForgetTask,
    Level,
    Resilience,
    ResilientTask,
    RetryPolicy,
    SheddingPolicy,
    degradable,
    fallback,
)

QUEUES = ("celery", "search", "search.retry")

app = Celery("shed", broker=os.environ.get("CELERY_BROKER_URL"), set_as_current=False)  # noqa: TID251 - an entry point
app.conf.task_default_queue = "celery"
resilience = Resilience(
    app,
    dependencies=[
        Dependency("search", timeout=5, retry=RetryPolicy(base_seconds=0.05), retry_share=None)
    ],
    features=[
        Feature("ranking", level=Level.REDUCED),
        Feature("spelling", level=Level.REDUCED),
        Feature("search", level=Level.FAILED),
        Feature("mail", level=Level.FAILED),
        Feature("again", level=Level.FAILED),
    ],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
)


def older(*_: object) -> str:
    """Answer with something old."""
    return "old"


CHAINS = {
    "rank": [fallback.call(older, level=Level.STALE), fallback.static("static")],
    "rank_stale": [fallback.call(older, level=Level.STALE)],
    "rank_bare": [],
}
for _name, _chain in CHAINS.items():

    @app.task(
        base=ResilientTask,
        name=_name,
        dependency="search",
        feature="ranking",
        fallbacks=_chain,
        shared=False,
    )
    def rank(query: str) -> str:
        """Rank."""
        return f"{query} ranked"


@app.task(
    base=ResilientTask,
    name="search_failed",
    dependency="search",
    feature="search",
    fallbacks=[fallback.static("nothing")],
    shared=False,
)
def search_failed(query: str) -> str:
    """Search, which nothing stands in for."""
    return query


@degradable("spelling", otherwise=lambda query: query)
def spelled(query: str) -> str:
    """Correct the spelling."""
    return f"{query} spelled"


@app.task(
    base=ResilientTask,
    name="search",
    dependency="search",
    fallbacks=[fallback.stale(max_age=60), fallback.static("none")],
    shared=False,
)
def search(query: str) -> str:
    """Search for what is meant."""
    return spelled(query)


@app.task(base=ResilientTask, name="search_plain", dependency="search", shared=False)
def search_plain(query: str) -> str:
    """Search for what is meant, without a chain."""
    return spelled(query)


@app.task(base=FireAndForgetTask, name="mail", dependency="search", feature="mail", shared=False)
def mail(key: str) -> None:
    """Note that it ran."""
    resilience.store.client.rpush(key, "ran")


@app.task(
    base=ResilientTask,
    name="again",
    bind=True,
    dependency="search",
    feature="again",
    autoretry_for=(ConnectionError,),
    retry_kwargs={"max_retries": 2, "countdown": 0},
    shared=False,
)
def again(self: ResilientTask) -> int:
    """Return how many retries were used up."""
    return int(self.request.retries)
