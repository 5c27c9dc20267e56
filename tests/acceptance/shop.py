"""The whole shop as a test holds it: every process of it, and a client of its front."""

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import httpx

from jobs import budgets
from jobs.dependencies import DEPENDENCIES
from resilience.testing.ports import free_port
from resilience.testing.process import ServerProcess, import_path
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.acceptance.upstream import ONE_REQUEST, PATIENCE_SECONDS, Upstream

TOLERANCE = 1.1
CONTROL_EVERY_SECONDS = 0.05
BUDGETS = {
    "recommendations": budgets.RECOMMENDATIONS,
    "orders": budgets.PLACE_ORDER,
    "order": budgets.LOOK_AT_ORDER,
    "search": budgets.SEARCH,
    "profile": budgets.PROFILE,
    "dashboard": budgets.DASHBOARD,
    "ping": budgets.PING,
}
READS = ("/recommendations/7", "/search?q=oak%20chair", "/profile/7", "/dashboard")
ORDER = {"user_id": 7, "product_id": 9, "quantity": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A running shop.

    Attributes:
        front: The web front.
        valkey: Broker and store.
        workers: One per bulkhead, by the name of its dependency, and `default`.
        upstreams: What it depends on, by name.
    """

    front: httpx.Client
    valkey: ValkeyProcess
    workers: Mapping[str, WorkerProcess]
    upstreams: Mapping[str, Upstream]

    def get(self, path: str) -> httpx.Response:
        """Return what the front answers, which must be inside the endpoint's budget."""
        return self._in_time(lambda: self.front.get(path))

    def order(self, user_id: int = 7) -> httpx.Response:
        """Return what the front answers to an order, which must be inside the budget."""
        return self._in_time(lambda: self.front.post("/orders", json={**ORDER, "user_id": user_id}))

    def is_healthy(self) -> bool:
        """Tell whether every endpoint answers in full."""
        answers = [self.front.post("/orders", json=ORDER), *map(self.front.get, READS)]
        return all(
            answer.is_success and not answer.json()["_meta"]["partial"] for answer in answers
        )

    def await_health(self) -> None:
        """Wait until every endpoint answers in full."""
        wait_until(self.is_healthy, PATIENCE_SECONDS, "every endpoint answers in full")

    def _in_time(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """Return an answer, which must have come inside its endpoint's budget plus 10 %.

        The control is a process that has no part in the answer and is asked again and again
        meanwhile. An answer may be late by as much as the slowest reply of the control took.
        """
        over, late = Event(), 0.0

        def watch() -> None:
            nonlocal late
            while not over.is_set():
                control = self.upstreams["users"].http.get("/stats")
                late = max(late, control.elapsed.total_seconds())
                over.wait(CONTROL_EVERY_SECONDS)

        watching = Thread(target=watch)
        watching.start()
        try:
            answer = ask()
        finally:
            over.set()
            watching.join()
        limit = TOLERANCE * BUDGETS[_endpoint(answer)]
        took = answer.elapsed.total_seconds()
        assert took <= limit + late, f"{answer.url} took {took:.3f} s; the control: {late:.3f} s"
        return answer


def _endpoint(answer: httpx.Response) -> str:
    endpoint = answer.url.path.split("/")[1]
    return "order" if endpoint == "orders" and answer.request.method == "GET" else endpoint


@contextmanager
def running_shop(
    upstreams: Mapping[str, Upstream],
    valkey: ValkeyProcess,
    database_url: str,
    directory: Path,
    **variables: str,
) -> Iterator[Shop]:
    """Run workers and front on what runs already, with more *variables*, until the block ends."""
    env = environment(upstreams, valkey, database_url) | variables
    queues = {one.name: one.queues for one in DEPENDENCIES} | {"default": ("celery",)}
    contexts = {
        name: run_worker(
            "workers.app", queues=all_of_it, concurrency=2, env=env, loglevel="WARNING"
        )
        for name, all_of_it in queues.items()
    }
    port = free_port()
    front = ServerProcess(
        [sys.executable, "-m", "uvicorn", "workers.front:front", "--port", str(port)],
        ready="Uvicorn running",
        log_path=directory / "front.log",
        env=env | {"PYTHONPATH": import_path()},
    )
    with ExitStack() as stack:
        stack.callback(front.stop)
        with ThreadPoolExecutor(len(queues) + 1) as pool:
            started = pool.submit(front.start)
            workers = dict(
                zip(queues, pool.map(stack.enter_context, contexts.values()), strict=True)
            )
            # Their shutdown takes seconds and tells nothing.
            stack.callback(lambda: [worker.kill() for worker in workers.values()])
            started.result()
        http = stack.enter_context(
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, limits=ONE_REQUEST
            )
        )
        yield Shop(front=http, valkey=valkey, workers=workers, upstreams=upstreams)


def environment(
    upstreams: Mapping[str, Upstream], valkey: ValkeyProcess, database_url: str
) -> dict[str, str]:
    """Return the variables that tell the shop where everything is."""
    services = ("users", "recommendations", "payments", "search")
    urls = {f"SHOP_{name.upper()}_URL": str(upstreams[name].http.base_url) for name in services}
    return urls | {
        "SHOP_BROKER_URL": valkey.url,
        "SHOP_DATABASE_URL": database_url,
        "RESILIENCE_LEDGER_URL": f"{database_url}-ledger",
        "SHOP_DWELL_SECONDS": "1",
        "SHOP_MAIL_HOST": "127.0.0.1",
        "SHOP_MAIL_PORT": str(upstreams["mail"].port),
        # Thirty processes on few processors: a pause of 0.1 s is no lost store here.
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "0.25",
    }
