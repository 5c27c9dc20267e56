"""Prove the shop: `python -m demo.proof --all`, on services and a database of its own.

Options are those of `celery -A workers.app resilience prove`.
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from demo.layout import CELERY, HTTP_UPSTREAMS
from demo.upstreams.server import READY
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess, import_path, inherited_env
from resilience.testing.throwaway import RUNTIME_DIRECTORY, swept

CALLS: Final = "jobs.proofs:CALLS"


def main(arguments: Sequence[str]) -> int:
    """Run the services, and the proof with *arguments*; return its exit code."""
    return run_beside_services(["prove", "--calls", CALLS, *arguments])


def run_beside_services(words: Sequence[str]) -> int:
    """Run `celery … resilience` with *words*, and services; return its exit code."""
    directory = Path(mkdtemp(prefix="shop-proof-"))
    with swept(directory), ExitStack() as stack:
        ports = {one: free_port() for one in (*HTTP_UPSTREAMS, "smtp", "mail")}
        database = f"sqlite:///{directory}/shop.db"
        env = {
            f"SHOP_{one.upper()}_URL": f"http://{LOCALHOST}:{ports[one]}" for one in HTTP_UPSTREAMS
        }
        env |= {
            "SHOP_BROKER_URL": "redis://the-proof-has-a-broker-of-its-own/0",
            "SHOP_DATABASE_URL": database,
            "SHOP_MAIL_HOST": LOCALHOST,
            "SHOP_MAIL_PORT": str(ports["smtp"]),
            "SHOP_DWELL_SECONDS": "1",
            "PYTHONPATH": import_path(),
        }
        services = {one: ["--port", str(ports[one])] for one in HTTP_UPSTREAMS}
        services["mail"] = ["--port", str(ports["smtp"]), "--control-port", str(ports["mail"])]
        processes = [_service(one, words, directory) for one, words in services.items()]
        for one in processes:
            stack.callback(one.kill)
        with ThreadPoolExecutor() as pool:
            seeded = pool.submit(
                subprocess.run, [sys.executable, "-m", "jobs.seed", database], check=True, stdout=-3
            )
            list(pool.map(ServerProcess.start, processes))
            seeded.result()
        command = [*CELERY, "resilience", *words]
        return subprocess.run(command, env=inherited_env(env), check=False).returncode  # noqa: S603 - ours


def _service(name: str, words: Sequence[str], directory: Path) -> ServerProcess:
    return ServerProcess(
        [sys.executable, "-m", "demo.upstreams", name, *words],
        ready=READY,
        log_path=directory / f"{name}.log",
        env={"PYTHONPATH": import_path(), RUNTIME_DIRECTORY: str(directory)},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
