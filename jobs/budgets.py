"""How long each endpoint of the front may take, in seconds, whatever happens behind it."""

from typing import Final

RECOMMENDATIONS: Final = 1.0
PLACE_ORDER: Final = 2.5
LOOK_AT_ORDER: Final = 1.0
SEARCH: Final = 1.5
PROFILE: Final = 1.5
DASHBOARD: Final = 1.2
PING: Final = 2.5
