"""The calls that each run of the tests tries, in a proof that forks its workers.

The proof imports this module before it starts its workers; see `tests.preloaded`.
"""

from planted import MISTAKES, SOUND

from tests import preloaded

NAMES = ("no last step", "charged again", "unmarked", "chained", "page")
QUICK = {name: {**MISTAKES, **SOUND}[name] for name in NAMES}

preloaded.install()
