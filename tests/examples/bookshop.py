"""An example app as a test holds it: its web process, its worker, what it depends on."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from resilience import Dependency
from resilience.testing.ports import free_port
from resilience.testing.process import ServerProcess, import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.acceptance.upstream import PATIENCE_SECONDS, Upstream

SECONDS = 120.0
EXAMPLES = Path(__file__).parents[2] / "examples"
BULKHEADS = (Dependency("recommendations"), Dependency("mail"))
QUEUES = ("celery", *(queue for one in BULKHEADS for queue in one.queues))
WEB = {
    "flask": (["flask", "--app", "make_celery:flask_app", "run", "--port"], "Running on"),
    "django": (["django", "runserver", "--noreload"], "Starting development server"),
    "fastapi": (["uvicorn", "bookshop:front", "--port"], "Uvicorn running"),
}
"""What starts the web process, and what it then writes."""
CELERY_APP = {"flask": "make_celery", "django": "bookshop", "fastapi": "bookshop:app"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookshop:
    """A running example.

    Attributes:
        web: A client of its web process.
        upstreams: The services `recommendations` and `mail`.
        env: Variables that say where everything is.
        home: An empty directory for what runs beside it.
    """

    web: httpx.Client
    upstreams: Mapping[str, Upstream]
    env: Mapping[str, str]
    home: Path

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that the app answers, which is no error."""
        return self.web.get(path).raise_for_status().json()

    def order(self, number: int) -> float:
        """Post an order, which is accepted; return the seconds that it took."""
        answer = self.web.post(f"/orders/{number}")
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return answer.elapsed.total_seconds()

    def mails(self, number: int) -> int:
        """Return how many mails about an order have arrived."""
        found = self.upstreams["mail"].http.get("/messages").json()
        return sum(one["message_id"].strip("<>").split("@")[0] == str(number) for one in found)

    def await_mail(self, number: int) -> None:
        """Wait until the mail about an order has arrived."""
        wait_until(lambda: self.mails(number), SECONDS, f"the mail about order {number} arrived")


@contextmanager
def running_bookshop(
    framework: str, version: str, upstreams: Mapping[str, Upstream], broker_url: str, home: Path
) -> Iterator[Bookshop]:
    """Run the example of a *framework*, `before` or `after` its adoption."""
    directory = EXAMPLES / framework / version
    env = {
        "PYTHONPATH": f"{directory}:{import_path()}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "BROKER_URL": broker_url,
        "DATABASE": str(home / "bookshop.sqlite3"),
        "MAIL_PORT": str(upstreams["mail"].port),
        "RECOMMENDATIONS_URL": str(upstreams["recommendations"].http.base_url).rstrip("/"),
        "RESILIENCE_LEDGER_URL": f"sqlite:///{home}/ledger.sqlite3",
        # Many processes on few processors: a pause of 0.1 s is no lost store here.
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "5",
    }
    if framework == "django":
        env["DJANGO_SETTINGS_MODULE"] = "bookshop.settings"
    port = free_port()
    module, ready = WEB[framework]
    web = ServerProcess(
        [sys.executable, "-m", *module, str(port)], ready=ready, log_path=home / "web.log", env=env
    )
    with ExitStack() as stack:
        if framework == "django":
            run_to_end([sys.executable, "-m", "django", "migrate", "--run-syncdb"], env, home)
        stack.callback(web.stop)
        web.start()
        worker = stack.enter_context(
            run_worker(CELERY_APP[framework], queues=QUEUES, concurrency=4, env=env)
        )
        stack.callback(worker.kill)  # its shutdown takes seconds and tells nothing
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=PATIENCE_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),  # a server may close one behind a 500
        )
        yield Bookshop(web=stack.enter_context(client), upstreams=upstreams, env=env, home=home)


def run_to_end(command: list[str], env: Mapping[str, str], home: Path) -> None:
    """Run a command that ends by itself, and must succeed."""
    with (home / "command.log").open("wb+") as log:
        done = subprocess.run(  # noqa: S603 - an example's own
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=inherited_env(env),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        log.seek(0)
        assert done.returncode == 0, log.read().decode(errors="replace")
