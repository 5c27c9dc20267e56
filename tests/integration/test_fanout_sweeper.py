"""The thread that ends due fan-outs stands in nobody's way."""

import subprocess
import sys

from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess

SECONDS = 120
FORKING = "tests.integration.apps.forking"


def test_forked_process_never_hangs_on_what_the_sweeper_held(valkey: ValkeyProcess) -> None:
    """A pool process that is forked at any moment can use the store at once."""
    env = {"CELERY_BROKER_URL": valkey.url, "PYTHONPATH": import_path()}

    done = subprocess.run(  # noqa: S603 - of this directory
        [sys.executable, "-m", FORKING],
        env=inherited_env(env),
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )

    assert done.returncode == 0, done.stderr.decode()
