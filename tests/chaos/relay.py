"""A relay in a process of its own, beside those in the workers."""

import os
import threading

from resilience.testing import announce
from resilience.worker.relay import Relay
from tests.chaos.app import app

if __name__ == "__main__":
    relay = Relay(app.resilience)  # type: ignore[attr-defined]
    os.write(announce.STDERR, f"{announce.READY}\n".encode())
    while True:
        threading.Event().wait(relay.look())
