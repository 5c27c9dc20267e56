"""Names that the ledger cannot hold."""

from resilience.ledger import KEY_LENGTH
from resilience.tasks.resilience import Resilience


def check_names(resilience: Resilience, *names: object) -> None:
    """Check that the ledger can keep a job with these *names*, whether it is to or not.

    Raises:
        UnkeepableError: It never can.
    """
    long = [name for name in names if isinstance(name, str) and len(name) > KEY_LENGTH]
    if long:  # else it is not even made: a publisher may never need it
        resilience.ledger.check_names(*long)
