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
ASK_TIMES = 3
# Not the script on the PATH, which changes to a user of its own and to a log of its own.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CORE = "lib/*/plugins/rabbit-[0-9]*"
"""The server itself among its plugins, beside the directory of `PROGRAM`."""
# A classic queue may end, as its consumer does, after it was listed.
_UNLESS_GONE = "catch exit:{Why, _} when Why =:= noproc; Why =:= normal -> [] end"


class Count(NamedTuple):
    """How many messages a queue holds.

    Attributes:
        waiting: For somebody to take them.
        held: By consumers that have not acknowledged them.
    """

    waiting: int
    held: int


UNKNOWN = Count(1, 0)


def find_program() -> Path | None:
    """Return the server's program; None: there is no server."""
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
            RuntimeError: There is no server on this machine.
        """
        program = find_program()
        if program is None:
            msg = "no RabbitMQ: apt-get install rabbitmq-server"
            raise RuntimeError(msg)
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = self._url("%2F")
        # The server's name would start a daemon of Erlang's that outlives it: the group's own one
        # is there before, and ends with the group.
        names = free_port()
        script = f'epmd -address {LOCALHOST} -port {names} & exec "$@"'
        self._node = f"{uuid4().hex[:12]}@localhost"
        self._cookie = secrets.token_hex(10)
        super().__init__(
            ["sh", "-c", script, "sh", str(program)],
            ready=READY,
            log_path=home / "rabbitmq.log",
            env=self._variables(home, names),
            directory=home,
        )

    def _variables(self, home: Path, names: int) -> dict[str, str]:
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {LOCALHOST}:{self.port}\n"
            # A crowd of tests on a full disk is no reason to block publishers.
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
            "ERL_EPMD_PORT": str(names),
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
            # Two schedulers, and no busy waiting: other tests need the processors as well.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def new_url(self, name: str | None = None) -> str:
        """Make an empty virtual host, for tests that meet nobody; return its address.

        Args:
            name: Of the virtual host; None: a new one.
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
        """Return how many messages each queue holds, unacknowledged included; see `counts`."""
        return {name: count.waiting + count.held for name, count in self.counts(url).items()}

    def counts(self, url: str | None = None) -> dict[str, Count]:
        """Return how many messages each queue holds.

        A quorum queue that was recovered and not used since does not say how many: one is said to
        wait in it, as it may not be empty.

        Args:
            url: From `new_url`: of that virtual host. None: of all; of queues with the same name,
                the sum.
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
            name, *said = line.rsplit(" ", 2)
            if name and len(said) == len(UNKNOWN):
                known = UNKNOWN if "none" in said else Count(*map(int, said))
                waiting, held = counts.get(name, Count(0, 0))
                counts[name] = Count(waiting + known.waiting, held + known.held)
        return counts

    def flush(self, url: str | None = None) -> None:
        """Delete all queues of all virtual hosts, or of the one at *url*; consumers are told."""
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
        """Let the server write down which quorum queues it has.

        It does so by itself three seconds after one was declared. One that a crash comes before is
        there after the next start, and answers nobody.
        """
        self.evaluate("[dets:sync(Table) || Table <- dets:all()], ok")

    def block(self) -> None:
        """Let the server take no messages, as when its memory is full."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1})")
        wait_until(
            lambda: "memory" in self.evaluate("rabbit_alarm:get_alarms()"),
            ASK_SECONDS,
            "the server blocks who publishes",
        )

    def unblock(self) -> None:
        """Let the server take messages again."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.9)")

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang *expression* in the server, and return its value as text.

        Raises:
            RuntimeError: It has none.
        """
        known = ["-r", "-c", self._cookie, "-n", self._node, "-timeout", str(ASK_SECONDS)]
        done = self._call(known, expression)
        for _ in range(ASK_TIMES - 1):
            if b"failed to connect" not in done.stderr:  # as a busy machine may
                break
            done = self._call(known, expression)
        said = done.stdout.decode()
        if done.returncode or not said.startswith("{ok, "):
            msg = f"{expression}: {said}{done.stderr.decode()}"
            raise RuntimeError(msg)
        return said.removeprefix("{ok, ").removesuffix("}")

    def _call(self, known: list[str], expression: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - tests start what they name
            [str(shutil.which("erl_call")), *known, "-e"],
            input=f"{expression}.\n".encode(),
            env=inherited_env(self.env),
            capture_output=True,
            check=False,
        )

    def send_signal(self, number: int) -> None:
        """Send a signal to the leader, a script; SIGSTOP and SIGCONT to the server, too."""
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            for helper in psutil.Process(self.pid).children(recursive=True):
                if number == signal.SIGSTOP:
                    suspend(helper.pid)
                else:
                    helper.send_signal(number)
        super().send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the server and to its helpers, some of which leave its group."""
        helpers = psutil.Process(self.pid).children(recursive=True) if self.running else []
        super().kill()
        for helper in helpers:
            with suppress(psutil.NoSuchProcess):
                helper.kill()
        psutil.wait_procs(helpers, timeout=KILL_SECONDS)


def _vhost(url: str | None) -> str:
    """Return the name of the virtual host with this *url* in Erlang; nothing stands for all."""
    return "" if url is None else f'<<"{unquote(url.rpartition("/")[2])}">>'


def running_rabbitmq() -> AbstractContextManager[RabbitProcess]:
    """Run a server with no data; skip or fail the test if there is none to run."""
    return running(RabbitProcess, "RabbitMQ", present=find_program() is not None)
