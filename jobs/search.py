"""Find products: candidates from the database, ranked by a service that may be away."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final, NamedTuple

from celery import shared_task
from sqlalchemy import select

from jobs.asking import NotServedError, answer_of, ask, require, workers_pipeline
from jobs.clients import fetch
from jobs.features import AI_RANKING, SEARCH, SPELL_CHECK
from jobs.models import Product
from jobs.storage import open_session
from resilience import (
    FanOut,
    FeatureShedError,
    Level,
    Outcome,
    PartAnswer,
    PartialResponse,
    Resilience,
    ResilientTask,
    TimeoutBudget,
    fallback,
    part,
)
from resilience.partial import assemble

CANDIDATES: Final = 50
SHOWN: Final = 20
STALE_SECONDS: Final = 600.0
CANDIDATE_SECONDS: Final = 0.6
RANKING_SECONDS: Final = 0.75


@shared_task(base=ResilientTask, dependency="database")
def find_products(query: str) -> list[dict[str, Any]]:
    """Return products with every word of *query* in name or category, best sellers first."""
    columns = (Product.id, Product.name, Product.category, Product.price_cents)
    found = select(*columns).order_by(Product.popularity.desc(), Product.id).limit(CANDIDATES)
    for word in query.split():
        anywhere = [
            column.icontains(word, autoescape=True) for column in (Product.name, Product.category)
        ]
        found = found.where(anywhere[0] | anywhere[1])
    with open_session() as session:
        return [dict(row) for row in session.execute(found).mappings()]


def by_popularity(query: str, product_ids: list[int]) -> list[int]:
    """Rank without the service: as the database gave them, the best sellers first."""
    del query
    return product_ids


@shared_task(
    base=ResilientTask,
    dependency="search",
    feature=AI_RANKING,
    fallbacks=[fallback.call(by_popularity, level=Level.REDUCED)],
)
def rank(query: str, product_ids: list[int]) -> list[int]:
    """Return *product_ids*, the one that fits *query* best first."""
    ids = ",".join(map(str, product_ids))
    return [one["id"] for one in fetch("search", "/rank", q=query, ids=ids)["scores"]]


@shared_task(base=ResilientTask, dependency="search", feature=SPELL_CHECK)
def correct(query: str) -> str:
    """Return *query* with its words spelled as our products are."""
    corrected: str = fetch("search", "/spell", q=query)["corrected"]
    return corrected


class Ranking(NamedTuple):
    """What the ranking service makes of candidates; without *spelling* it was not reached."""

    product_ids: list[int]
    spelling: PartAnswer | None


SHED: Final = FeatureShedError.__name__
"""Why an answer lacks what a shed feature would have brought."""
SHED_SPELLING: Final = PartAnswer(name="spelling", outcome=None, reason=SHED)


class Search:
    """Search for the front, which ranks by itself when no worker does."""

    def __init__(self, resilience: Resilience) -> None:
        """Prepare the chain of the caller's side."""
        self._flags = resilience.flags
        self._pipeline = workers_pipeline(
            resilience, "search", fallbacks=[fallback.call(_unranked, level=Level.REDUCED)]
        )

    async def find(self, query: str, *, budget: float) -> PartialResponse:
        """Return products for *query* and, if it can be told, how it is spelled right.

        Args:
            query: One or more words.
            budget: Seconds until the answer, at most.

        Raises:
            NotServedError: The database does not answer, and has not lately for this query; or
                search is switched off.
        """
        if not self._flags.enabled(SEARCH):
            shed = self._flags.shed_error(SEARCH)
            raise NotServedError(SEARCH, {"products": SHED}, shed.retry_after)
        wanted = FanOut(products=part(find_products.s(query), required=True, stale=STALE_SECONDS))
        async with TimeoutBudget(budget) as whole:
            response = await require(wanted, CANDIDATE_SECONDS)
        found = answer_of(response, wanted, CANDIDATE_SECONDS)
        by_id = {one["id"]: one for one in found.value}
        # Not in the block: ranking without the service takes no time, and must not fail for that.
        seconds = min(RANKING_SECONDS, whole.remaining())
        wished = {name for name in (AI_RANKING, SPELL_CHECK) if self._flags.enabled(name)}
        ranked: Outcome[Ranking] = await self._pipeline.call_async(
            _ask_service, query, list(by_id), wished, seconds
        )
        ids, spelling = ranked.value
        nothing = PartAnswer(name="spelling", outcome=None, reason=ranked.reason)
        made = assemble(
            [
                PartAnswer(name="products", outcome=found),
                PartAnswer(
                    name="ranking",
                    outcome=Outcome(
                        value=ids, level=ranked.level, reason=ranked.reason, source=ranked.source
                    ),
                ),
                spelling or nothing,
            ]
        )
        products = [by_id[number] for number in ids[:SHOWN]]
        return replace(made, data={"products": products, "spelling": made.data.get("spelling")})


async def _ask_service(
    query: str, product_ids: list[int], wished: Collection[str], seconds: float
) -> Outcome[Ranking]:
    """Ask for what is *wished*; the features that are not are shed."""
    parts = {}
    if AI_RANKING in wished:
        parts["ranking"] = part(rank.s(query, product_ids))
    if SPELL_CHECK in wished:
        parts["spelling"] = part(correct.s(query))
    wanted = FanOut(**parts) if parts else None
    response = assemble([]) if wanted is None else await ask(wanted, seconds)
    spelling = _spelling(response) if SPELL_CHECK in wished else SHED_SPELLING
    if wanted is not None and AI_RANKING in wished:
        ranked = answer_of(response, wanted, seconds)
    else:
        simple = by_popularity(query, product_ids)
        ranked = Outcome(
            value=simple, level=Level.REDUCED, reason=SHED, source=by_popularity.__name__
        )
    return replace(ranked, value=Ranking(ranked.value, spelling))


def _spelling(response: PartialResponse) -> PartAnswer:
    said = response.data.get("spelling")
    return PartAnswer(
        name="spelling",
        outcome=None if said is None else Outcome(value=said),
        reason=response.reasons.get("spelling"),
    )


def _unranked(
    query: str, product_ids: list[int], wished: Collection[str], seconds: float
) -> Ranking:
    del wished, seconds
    return Ranking(by_popularity(query, product_ids), None)
