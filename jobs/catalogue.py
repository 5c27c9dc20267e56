"""The facts of the shop, each a function of its id.

The database is seeded with them and the upstream services answer from them, so that both
agree without talking to each other. Nothing here is stored: importing costs next to nothing.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple
from uuid import UUID

from jobs import words

PRODUCT_COUNT: Final = 3_000
USER_COUNT: Final = 2_000
ORDER_COUNT: Final = 4_000
FIRST_ORDER_AT: Final = datetime(2025, 1, 1, tzinfo=UTC)
POPULAR: Final[Sequence[int]] = [744, 417, 118, 2186, 2531, 1639, 1392, 847, 935, 1716]
"""The best sellers when this was written."""

_SELLING_DAYS: Final = 90
_SEGMENT_FAVOURITES: Final = 100
_MAX_POPULARITY: Final = 10_000
_THINGS: Final = tuple((noun, kind) for kind, nouns in words.NOUNS.items() for noun in nouns)
# Coprime to the number of possible names, so that no two products share one.
_NAME_STRIDE: Final = 7_919


class ProductFacts(NamedTuple):
    """One product as the whole shop knows it; *popularity* is units sold, 10 to 10,000."""

    id: int
    name: str
    category: str
    price_cents: int
    popularity: int


class UserFacts(NamedTuple):
    """One user; *segment* is a key of `words.SEGMENTS`."""

    id: int
    name: str
    email: str
    segment: str


class OrderFacts(NamedTuple):
    """One order of the past, already paid."""

    id: str
    user_id: int
    product_id: int
    quantity: int
    amount_cents: int
    charge_id: str
    created_at: datetime


def _dice(kind: str, number: int) -> Random:
    """Return the source of everything that is arbitrary about one thing."""
    return Random(f"{kind}:{number}")  # noqa: S311 - shop data, nothing to guess


def product(product_id: int) -> ProductFacts:
    """Return the product with this id, 1 to `PRODUCT_COUNT`.

    Raises:
        LookupError: There is no such product.
    """
    if not 1 <= product_id <= PRODUCT_COUNT:
        msg = f"no product {product_id}"
        raise LookupError(msg)
    names = len(words.ADJECTIVES) * len(words.MATERIALS) * len(_THINGS)
    rest, adjective = divmod(product_id * _NAME_STRIDE % names, len(words.ADJECTIVES))
    thing, material = divmod(rest, len(words.MATERIALS))
    noun, category = _THINGS[thing]
    dice = _dice("product", product_id)
    return ProductFacts(
        id=product_id,
        name=f"{words.ADJECTIVES[adjective]} {words.MATERIALS[material]} {noun}",
        category=category,
        price_cents=dice.randint(4, 300) * 100 - 1,
        popularity=min(_MAX_POPULARITY, round(10 * dice.paretovariate(1.2))),
    )


@lru_cache(maxsize=1)
def by_popularity() -> tuple[ProductFacts, ...]:
    """Return every product, the most popular first; computed once per process."""
    every = (product(number) for number in range(1, PRODUCT_COUNT + 1))
    return tuple(sorted(every, key=lambda item: (-item.popularity, item.id)))


@lru_cache(maxsize=len(words.SEGMENTS))
def favourites(segment: str) -> tuple[ProductFacts, ...]:
    """Return the hundred products that sell best in *segment*, the best first.

    Raises:
        LookupError: There is no such segment.
    """
    categories = words.SEGMENTS[segment]
    liked = [item for item in by_popularity() if item.category in categories]
    return tuple(liked[:_SEGMENT_FAVOURITES])


def user(user_id: int) -> UserFacts:
    """Return the user with this id, 1 to `USER_COUNT`.

    Raises:
        LookupError: There is no such user.
    """
    if not 1 <= user_id <= USER_COUNT:
        msg = f"no user {user_id}"
        raise LookupError(msg)
    dice = _dice("user", user_id)
    first, last = dice.choice(words.FIRST_NAMES), dice.choice(words.LAST_NAMES)
    return UserFacts(
        id=user_id,
        name=f"{first} {last}",
        email=f"{first}.{last}.{user_id}@shop.example".lower(),
        segment=dice.choice(tuple(words.SEGMENTS)),
    )


def personalised(user_id: int, count: int) -> list[int]:
    """Return the ids of *count* products (at most 100) for this user, the best first.

    A weighted sample without replacement of what the user's segment likes (Efraimidis and
    Spirakis, 2006): popular things come first more often, yet each user's list is their own.

    Raises:
        LookupError: There is no such user.
    """
    dice = _dice("taste", user_id)
    liked = favourites(user(user_id).segment)
    drawn = [(dice.random() ** (1 / item.popularity), item.id) for item in liked]
    return [product_id for _, product_id in sorted(drawn, reverse=True)[:count]]


def notifications(user_id: int) -> list[str]:
    """Return two to four texts that wait for this user.

    Raises:
        LookupError: There is no such user.
    """
    dice = _dice("notifications", user_id)
    liked = favourites(user(user_id).segment)
    texts = dice.sample(words.NOTIFICATIONS, dice.randint(2, 4))
    return [text.format(product=dice.choice(liked).name) for text in texts]


def order(number: int) -> OrderFacts:
    """Return a past order; any *number* from 1 gives one, with ids that look random."""
    dice = _dice("order", number)
    buyer = user(dice.randint(1, USER_COUNT))
    bought = dice.choice(favourites(buyer.segment))
    quantity = dice.choice((1, 1, 1, 2, 2, 3))
    order_id = str(UUID(int=dice.getrandbits(128), version=4))
    return OrderFacts(
        id=order_id,
        user_id=buyer.id,
        product_id=bought.id,
        quantity=quantity,
        amount_cents=quantity * bought.price_cents,
        charge_id=charge_id(order_id),
        created_at=FIRST_ORDER_AT + timedelta(seconds=dice.randrange(_SELLING_DAYS * 86_400)),
    )


def charge_id(order_id: str) -> str:
    """Return the id that the payment provider gives the charge of this order, always the same."""
    return "ch_" + hashlib.sha256(order_id.encode()).hexdigest()[:24]
