"""What is proved of the shop, in a proof that forks the workers of the shop.

The proof imports this module before it starts its workers; see `tests.preloaded`.
"""

from jobs.proofs import CALLS
from tests import preloaded

__all__ = ["CALLS"]

preloaded.install()
