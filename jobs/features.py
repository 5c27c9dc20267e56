"""What the shop can do without, so that the rest goes on."""

from collections.abc import Sequence
from typing import Final

from resilience import Feature, Level

SEARCH: Final = "search"
AI_RANKING: Final = "search.ai_ranking"
SPELL_CHECK: Final = "search.spell_check"

FEATURES: Final[Sequence[Feature]] = (
    # Nothing stands in for it, so only people switch it off.
    Feature(SEARCH, level=Level.FAILED, depends_on=("database",), automatic=False),
    Feature(AI_RANKING, level=Level.REDUCED, depends_on=("search",), cost=0.02),
    Feature(SPELL_CHECK, level=Level.REDUCED, depends_on=("search",), cost=0.01),
)
"""Ranking takes longer, so the controller sheds it first."""
