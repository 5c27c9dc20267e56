"""A real RabbitMQ server for tests.

Needs the server's programs, as Debian's package `rabbitmq-server` installs them, and those of
Erlang that it depends on.
"""

import secrets
import shutil
import signal
import subprocess
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from uuid import uuid4

import psutil

from resilience.testing.homes import running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import (
    KILL_SECONDS,
    ServerProcess,
    inherited_env,
    suspend,
)
from resilience.testing.waiting import wait_until

READY = " completed with "
USER = "guest"
ASK_SECONDS = 30
# Not the script on the PATH, which changes to another user and to another log.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CORE = "lib/*/plugins/rabbit-[0-9]*"
"""Pattern of the only plugin that is needed, relative to the parent of the folder of `PROGRAM`."""
CODE = ("lib/erlang/lib/*/ebin/*.beam", "lib/rabbitmq/lib/*/plugins/*/ebin/*.beam")
"""Patterns of all modules of Erlang and of the server, relative to `/usr`."""
# A listed classic queue may have ended with its consumer: it then counts for nothing.
_UNLESS_GONE = "catch exit:{Why, _} when Why =:= noproc; Why =:= normal -> [] end"


class Count(NamedTuple):
    """How many messages a queue holds.

    Attributes:
        waiting: Messages that no consumer has.
        held: Messages that consumers have and have not acknowledged.
    """

    waiting: int
    held: int


UNKNOWN = Count(1, 0)
"""Of a recovered queue that does not say how many messages it has: it may not be empty."""


def find_program() -> Path | None:
    """Return the server's program; None: it is not installed, or epmd or erl_call is not."""
    needed = (shutil.which("epmd"), shutil.which("erl_call"))
    return PROGRAM if PROGRAM.exists() and all(needed) else None


class RabbitProcess(ServerProcess):
    """A server on free ports, which keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of the virtual host `/`; see `new_url`.
    """

    def __init__(self, home: Path) -> None:
        """Describe the server; `start` starts it, which takes some seconds.

        Args:
            home: Directory for its data and its log; made if missing.

        Raises:
            RuntimeError: The server is not installed.
        """
        program = find_program()
        if program is None:
            msg = "no RabbitMQ: apt-get install rabbitmq-server"
            raise RuntimeError(msg)
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = self._url("%2F")
        # The server would start Erlang's name server, epmd, as a daemon that outlives it. So one
        # is started before it, in its process group.
        epmd_port = free_port()
        script = f'epmd -address {LOCALHOST} -port {epmd_port} & exec "$@"'
        self._node = f"{uuid4().hex[:12]}@localhost"
        self._cookie = secrets.token_hex(10)
        super().__init__(
            ["sh", "-c", script, "sh", str(program)],
            ready=READY,
            log_path=home / "rabbitmq.log",
            env=self._variables(home, epmd_port),
            directory=home,
        )

    def _variables(self, home: Path, epmd_port: int) -> dict[str, str]:
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {LOCALHOST}:{self.port}\n"
            # Publishers must not be blocked because the disk of the tests is almost full.
            "disk_free_limit.absolute = 1MB\nlog.console.level = warning\n"
        )
        (home / "rabbitmq-env.conf").touch()
        (home / "enabled_plugins").write_text("[].\n")
        # The server reads all plugins that it finds, enabled or not: a third of what a start costs.
        plugins = home / "plugins"
        plugins.mkdir(exist_ok=True)
        for core in PROGRAM.parent.parent.glob(CORE):
            (plugins / core.name).symlink_to(core)
        return {
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": LOCALHOST,
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_ERLANG_COOKIE": self._cookie,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_PLUGINS_DIR": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            # Few threads, and no busy waiting: other tests need the processors as well.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +SDio 1 "
            f"+sbwt none +sbwtdcpu none +sbwtdio none -pa {_linked_modules(home / 'modules')}",
        }

    def new_url(self, name: str | None = None) -> str:
        """Make an empty virtual host, which no other test uses, and return its address.

        Args:
            name: Name of the virtual host; None: a new name.
        """
        name = name or uuid4().hex
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"{USER}">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{USER}">>, <<"{name}">>, '
            f'<<".*">>, <<".*">>, <<".*">>, <<"{USER}">>)'
        )
        return self._url(name)

    def _url(self, vhost: str) -> str:
        return f"amqp://{USER}:{USER}@{LOCALHOST}:{self.port}/{vhost}"

    def depths(self, url: str | None = None) -> dict[str, int]:
        """Return how many messages each queue holds, waiting and held together; see `counts`."""
        return {name: count.waiting + count.held for name, count in self.counts(url).items()}

    def counts(self, url: str | None = None) -> dict[str, Count]:
        """Return how many messages each queue holds.

        A quorum queue that was recovered and not used since does not say how many. It counts as
        one that waits, as the queue may not be empty.

        Args:
            url: A virtual host, from `new_url`; None: all of them, where queues with the same name
                are added up.
        """
        found = self.evaluate(
            "Ask = fun(Q, What) -> case ra:local_query(amqqueue:get_pid(Q), What) of "
            "{ok, {_, N}, _} -> N; _ -> none end end, "
            "Count = fun(Q) -> case amqqueue:get_type(Q) of rabbit_quorum_queue -> "
            "[Ask(Q, fun rabbit_fifo:query_messages_ready/1), "
            "Ask(Q, fun rabbit_fifo:query_messages_checked_out/1)]; "
            "_ -> [N || {_, N} <- try rabbit_amqqueue:info(Q, "
            f"[messages_ready, messages_unacknowledged]) {_UNLESS_GONE}] end end, "
            'lists:flatten([io_lib:format("~s ~w ~w~n", '
            "[element(4, amqqueue:get_name(Q)) | Count(Q)]) "
            f"|| Q <- rabbit_amqqueue:list({_vhost(url)})])"
        )
        counts: dict[str, Count] = {}
        for line in found.strip('"').replace("\\n", "\n").split("\n"):
            name, *numbers = line.rsplit(" ", 2)
            if name and len(numbers) == len(UNKNOWN):
                known = UNKNOWN if "none" in numbers else Count(*map(int, numbers))
                waiting, held = counts.get(name, Count(0, 0))
                counts[name] = Count(waiting + known.waiting, held + known.held)
        return counts

    def flush(self, url: str | None = None) -> None:
        """Delete all queues of all virtual hosts, or of the one at *url*, and cancel consumers."""
        self.evaluate(
            f'[rabbit_amqqueue:delete(Q, false, false, <<"{USER}">>) '
            f"|| Q <- rabbit_amqqueue:list({_vhost(url)})], ok"
        )

    def purge(self, url: str) -> None:
        """Delete the messages that wait in any queue of the virtual host at *url*."""
        self.evaluate(
            f"[try rabbit_amqqueue:purge(Q) {_UNLESS_GONE} "
            f"|| Q <- rabbit_amqqueue:list({_vhost(url)})], ok"
        )

    def note_queues(self) -> None:
        """Let the server write to disk which quorum queues it has.

        It does so by itself three seconds after a queue was declared. A queue that it had not noted
        when it was killed is there after the next start, and answers nobody.
        """
        self.evaluate("[dets:sync(Table) || Table <- dets:all()], ok")

    def block(self) -> None:
        """Make the server block publishers, as when its memory is full."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1})")
        wait_until(
            lambda: "memory" in self.evaluate("rabbit_alarm:get_alarms()"),
            ASK_SECONDS,
            "the server blocks publishers",
        )

    def unblock(self) -> None:
        """Let publishers go on."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.9)")

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang *expression* in the server, and return its value as text.

        Raises:
            RuntimeError: The expression failed, or the server was not reached in time.
        """
        node = ["-r", "-c", self._cookie, "-n", self._node, "-timeout", str(ASK_SECONDS)]
        attempts: list[subprocess.CompletedProcess[bytes]] = []

        def reached() -> bool:
            attempts.append(self._call(node, expression))
            return b"failed to connect" not in attempts[-1].stderr

        with suppress(AssertionError):  # a busy machine may need several attempts
            wait_until(reached, ASK_SECONDS, "the server is reached")
        done = attempts[-1]
        answer = done.stdout.decode()
        if done.returncode or not answer.startswith("{ok, "):
            msg = f"{expression}: {answer}{done.stderr.decode()}"
            raise RuntimeError(msg)
        return answer.removeprefix("{ok, ").removesuffix("}")

    def _call(self, node: list[str], expression: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - tests start what they name
            [str(shutil.which("erl_call")), *node, "-e"],
            input=f"{expression}.\n".encode(),
            env=inherited_env(self.env),
            capture_output=True,
            check=False,
        )

    def send_signal(self, number: int) -> None:
        """Send a signal to the leader, a script; SIGSTOP and SIGCONT go to the server, too."""
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            for helper in psutil.Process(self.pid).children(recursive=True):
                if number == signal.SIGSTOP:
                    suspend(helper.pid)
                else:
                    helper.send_signal(number)
        super().send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the server and to its helpers, some of which have left its group."""
        helpers = psutil.Process(self.pid).children(recursive=True) if self.running else []
        super().kill()
        for helper in helpers:
            with suppress(psutil.NoSuchProcess):
                helper.kill()
        psutil.wait_procs(helpers, timeout=KILL_SECONDS)


def _linked_modules(folder: Path) -> Path:
    """Link all modules in *folder*.

    A server that starts loads a thousand, and would look for each in up to a hundred folders.
    """
    folder.mkdir(exist_ok=True)
    for module in (path for pattern in CODE for path in Path("/usr").glob(pattern)):
        with suppress(FileExistsError):
            (folder / module.name).symlink_to(module)
    return folder


def _vhost(url: str | None) -> str:
    """Return the virtual host of *url* as Erlang writes it; None: "", which stands for all."""
    return "" if url is None else f'<<"{unquote(url.rpartition("/")[2])}">>'


def running_rabbitmq() -> AbstractContextManager[RabbitProcess]:
    """Run a server without data; if none is installed, skip the test, or fail it where CI=true."""
    return running(RabbitProcess, "RabbitMQ", present=find_program() is not None)
