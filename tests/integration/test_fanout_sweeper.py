"""The thread that ends due fan-outs stands in nobody's way."""

import subprocess
import sys

from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess

SECONDS = 120

FORK_OFTEN = """
import os, signal
from types import SimpleNamespace
from resilience.worker import sweeper
from tests.integration.apps.fresh import new_app
from resilience import Dependency, Resilience, Settings

app = new_app()
resilience = Resilience(
    app,
    dependencies=[Dependency("users")],
    settings=Settings(store_url=os.environ["CELERY_BROKER_URL"], store_timeout_seconds=10),
)
sweeper.LOOK_SECONDS = 0.0
step = sweeper.FanInSweeper(SimpleNamespace(app=app))
step.start(SimpleNamespace(app=app))
for _ in range(100):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        resilience.fan_in.take_due()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"a forked process ended with {status}: it hung"
step.stop(SimpleNamespace(app=app))
"""


def test_forked_process_never_hangs_on_what_the_sweeper_held(valkey: ValkeyProcess) -> None:
    """A pool process that is forked at any moment can use the store at once."""
    env = {"CELERY_BROKER_URL": valkey.url, "PYTHONPATH": import_path()}

    done = subprocess.run(  # noqa: S603 - the text above
        [sys.executable, "-c", FORK_OFTEN],
        env=inherited_env(env),
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )

    assert done.returncode == 0, done.stderr.decode()
