"""What cannot be tested while a coverage tool traces the tests."""

import sys
import threading

import pytest

_TRACED = sys.gettrace() is not None or threading.gettrace() is not None
CUTS_NO_THREAD = sys.version_info < (3, 12) and _TRACED

cuts_a_thread = pytest.mark.skipif(
    CUTS_NO_THREAD,
    reason="no thread is cut under a tracer on CPython 3.11; runs where coverage is not measured",
)
