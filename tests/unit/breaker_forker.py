"""Forks while a breaker is in use; prints for how many seconds the child's circuit is open.

Its arguments are the address of the store, the namespace, and the process id of the store. If the
id is 0, the child opens the circuit. Else the parent opens it, and kills the store before it forks.
"""

import json
import os
import signal
import sys

from tests.unit.processes import Process


def main(url: str, namespace: str, kill: int) -> None:
    """Use the breaker, fork, and ask it in the child."""
    process = Process(url, namespace=namespace)
    process.breaker.call(str)
    if kill:
        process.open()
        os.kill(kill, signal.SIGKILL)
    child = os.fork()
    if child == 0:
        if not kill:
            process.open_for_all()
        refusal = process.breaker.refusal()
        print(json.dumps(refusal and refusal.retry_after), flush=True)  # noqa: T201 - its output
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
