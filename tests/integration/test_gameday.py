"""`resilience gameday`: its verdict is the exit code, and a broken promise names the job."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resilience.testing.process import import_path, inherited_env

APPS = Path(__file__).parent / "gameday_apps"
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gameday.md"
FILE = re.compile(r"^```(?:python|toml)\n# ([\w.]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS = 200


def play(*words: str, app: str, home: Path) -> tuple[int, dict[str, Any], str]:
    """Play a game day; return its exit code, what it prints as JSON, and its progress."""
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "celery", "-A", app, "resilience", "gameday", *words, "--json"],
        env=inherited_env({"PYTHONPATH": import_path(home)}),
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )
    print(done.stderr.decode())  # noqa: T201 - shown if the test fails
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr.decode()


@pytest.mark.long
def test_game_day_of_the_page_keeps_its_promises(tmp_path: Path) -> None:
    """The app and the plan of docs/gameday.md: both faults strike, and nothing is lost."""
    for name, text in FILE.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text)
    report = tmp_path / "report.html"

    plan = str(tmp_path / "plan.toml")
    code, document, progress = play(plan, "--html", str(report), app="shop", home=tmp_path)

    assert (code, document["verdict"]) == (0, "kept"), progress
    assert [one["fault"] for one in document["faults"]] == ["error stock", "freeze broker"]
    assert document["jobs"]["degraded"]
    assert len(document["requests"]) == 36
    levels = {one["level"] for one in document["requests"]}
    assert levels == {"FULL", "STATIC"}
    assert '"verdict": "kept"' in report.read_text()


def test_lost_job_breaks_its_promise_and_is_named() -> None:
    """An app that acknowledges before the work is done loses a job with its worker."""
    plan = str(APPS / "careless.toml")

    code, document, progress = play(plan, app="careless", home=APPS)

    assert code == 1, progress
    [job] = document["jobs"]["lost"]
    assert document["broken"] == [f"lost ≤ 0: there were 1: careless.mail {job}"]
    assert job in progress


@pytest.mark.long
def test_game_day_of_the_shop_keeps_its_promises() -> None:
    """Broker frozen, store silent, a worker killed, two dependencies broken: nothing is lost."""
    done = subprocess.run(
        [sys.executable, "-m", "demo.gameday", "--json"],
        cwd=ROOT,
        env=inherited_env({}),
        stdout=subprocess.PIPE,
        check=False,
        timeout=SECONDS,
    )

    document = json.loads(done.stdout)
    assert document["broken"] == []
    assert done.returncode == 0
