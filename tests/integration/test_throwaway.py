"""What is left of a throw-away server when whoever started it is killed: nothing."""

import subprocess
import sys
from pathlib import Path

from resilience.testing.process import import_path, inherited_env, is_alive
from resilience.testing.waiting import wait_until

SECONDS = 60.0
CODE = """
import sys
from pathlib import Path
from resilience.testing.process import running_processes
from resilience.testing.throwaway import running_server, swept

directory = Path(sys.argv[1])
with swept(directory), running_server(directory):
    print(running_processes()[0].pid, flush=True)
    sys.stdin.read()
"""


def test_server_and_files_go_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL of a proof leaves neither a server nor a file behind."""
    directory = tmp_path / "stage"
    directory.mkdir()
    with subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-c", CODE, str(directory)],
        env=inherited_env({"PYTHONPATH": import_path()}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        assert is_alive(server)

        process.kill()
        process.wait()

    wait_until(lambda: not is_alive(server), SECONDS, "the server is gone")
    wait_until(lambda: not directory.exists(), SECONDS, "its files are gone")
