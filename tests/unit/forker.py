"""A program whose main thread forks from another one; prints what a limit does in the child."""

import os
import threading
from threading import Event

from resilience.budget import call_within


class LateError(Exception):
    """What the limit raises."""


def fork() -> None:
    """Fork, and cut a call in the child: this thread is its main one."""
    child = os.fork()
    if child == 0:
        try:
            call_within(0.05, LateError, Event().wait, (20.0,))
        except LateError:
            os.write(1, f"cut with {threading.active_count()} thread\n".encode())
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    call_within(1.0, LateError, int)
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
