"""What happens to a test if a server that it needs is not installed."""

import os

import pytest


def require(name: str, *, present: bool) -> None:
    """Return if *name* is present; else skip the test, or fail it where CI=true.

    A laptop may lack a server, but continuous integration must not skip a check silently.
    """
    if present:
        return
    message = f"{name} is not available on this machine"
    # The variable is a fact about where the tests run, not a setting of the library.
    if os.environ.get("CI") == "true":  # noqa: TID251 - see above
        pytest.fail(message)
    pytest.skip(message)
