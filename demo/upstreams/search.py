"""The costly half of search: ranking by similarity, and spelling."""

import difflib
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import chain
from statistics import median
from time import perf_counter
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.upstreams.control import faulty_service
from demo.upstreams.fault import FaultSwitch
from jobs import catalogue, words

MAX_IDS: Final = 200
_MAX_QUERY_LENGTH: Final = 200
_POPULARITY_WEIGHT: Final = 0.2
_METER_SECONDS: Final = 60.0
_METER_QUERIES: Final = 10_000


class Meter:
    """The queries of the last minute, of which it remembers 10,000."""

    def __init__(self) -> None:
        """Start with none."""
        self._queries: deque[tuple[float, float]] = deque(maxlen=_METER_QUERIES)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count what happens inside as one query, unless it fails."""
        started = perf_counter()
        yield
        now = perf_counter()
        self._queries.append((now, now - started))

    def report(self) -> dict[str, float]:
        """Return the count and the median duration; zeros if there were none."""
        since = perf_counter() - _METER_SECONDS
        recent = [seconds for ended, seconds in self._queries if ended >= since]
        median_ms = round(1_000 * median(recent), 3) if recent else 0.0
        return {"queries_per_minute": len(recent), "median_ms": median_ms}


def create_app(switch: FaultSwitch) -> Starlette:
    """Return the service; *switch* breaks it."""
    meter = Meter()
    lists = (words.ADJECTIVES, words.MATERIALS, *words.NOUNS.values())
    vocabulary = sorted({word.lower() for word in chain.from_iterable(lists)})

    async def get_rank(request: Request) -> Response:
        with meter.measure():
            query, products = _query(request), _requested_products(request)
            ranked = sorted(((_score(query, item), item.id) for item in products), reverse=True)
        scores = [{"id": product_id, "score": round(score, 4)} for score, product_id in ranked]
        return JSONResponse({"query": query, "scores": scores})

    async def get_spell(request: Request) -> Response:
        with meter.measure():
            query = _query(request)
            corrected = " ".join(_correct(word, vocabulary) for word in query.lower().split())
        return JSONResponse({"query": query, "corrected": corrected})

    async def get_metrics(_request: Request) -> Response:
        return JSONResponse(meter.report())

    routes = [
        Route("/rank", get_rank),
        Route("/spell", get_spell),
        Route("/metrics", get_metrics),
    ]
    return faulty_service(switch, routes)


def _query(request: Request) -> str:
    query = request.query_params.get("q", "").strip()
    if not 0 < len(query) <= _MAX_QUERY_LENGTH:
        detail = f"q: 1 to {_MAX_QUERY_LENGTH} characters are needed, got {len(query)}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return query


def _requested_products(request: Request) -> list[catalogue.ProductFacts]:
    texts = request.query_params.get("ids", "").split(",")
    if len(texts) > MAX_IDS:
        detail = f"ids: at most {MAX_IDS}, got {len(texts)}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    try:
        return [catalogue.product(int(text)) for text in texts if text]
    except (LookupError, ValueError) as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"ids: {error}") from error


def _score(query: str, item: catalogue.ProductFacts) -> float:
    """Return how well *item* meets *query*, 0 to 1: mostly likeness, a little popularity."""
    asked, offered = _trigrams(query), _trigrams(f"{item.name} {item.category}")
    likeness = len(asked & offered) / math.sqrt(len(asked) * len(offered))
    popularity = min(1.0, math.log10(item.popularity) / 4)
    return (1 - _POPULARITY_WEIGHT) * likeness + _POPULARITY_WEIGHT * popularity


def _trigrams(text: str) -> set[str]:
    # Padded, so that the beginnings of words weigh more and a single letter has trigrams too.
    padded = "".join(f"  {word} " for word in text.lower().split())
    return {padded[at : at + 3] for at in range(len(padded) - 2)}


def _correct(word: str, vocabulary: list[str]) -> str:
    """Return the word of the *vocabulary* that is meant, or *word* if none is close."""
    return next(iter(difflib.get_close_matches(word, vocabulary, n=1)), word)
