"""What a test does without a server that it needs."""

import os

import pytest


def require(name: str, *, present: bool) -> None:
    """Go on if *name* is present; else skip the test, or fail it where CI=true.

    A laptop may lack a server, but a build that silently skips what it should check is no check.
    """
    if present:
        return
    message = f"{name} is not available on this machine"
    # The variable is a fact about where the tests run, not a setting of the library.
    if os.environ.get("CI") == "true":  # noqa: TID251 - see above
        pytest.fail(message)
    pytest.skip(message)
