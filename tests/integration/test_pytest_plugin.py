"""The pytest plugin as a user's suite meets it: pytest runs in a process of its own."""

import re
from importlib.metadata import entry_points

import pytest

from resilience.testing.process import import_path

pytest_plugins = ["pytester"]

HEAVY = {"celery", "httpx", "psutil", "pydantic", "pytest_celery", "redis", "sqlalchemy"}
CHAOTIC = """
    import random, pytest, shop

    def fates():
        failed = []
        for _ in range(50):
            try:
                shop.charge()
            except ConnectionError:
                failed.append(1)
            else:
                failed.append(0)
        return "".join(map(str, failed))

    @pytest.mark.chaos(target="shop.charge", rate=0.5)
    def test_marked():
        fates = globals()["fates"]()
        print("fates:", fates)
        assert not fates

    @pytest.fixture
    def broken(chaos_mode):
        assert shop.charge() == "charged"
        chaos_mode.set(targets="shop.charge", rate=1)
        yield
        assert shop.charge() == "charged"
        raise ZeroDivisionError

    def test_fixture_that_fails(broken):
        assert fates() == "1" * 50

    def test_injected(chaos_mode):
        assert shop.charge() == "charged"
        chaos_mode.set(targets="shop.charge")
        assert fates().count("1") == len(chaos_mode.injected) > 0

    @pytest.mark.parametrize("chaotic", [pytest.param(True, marks=pytest.mark.chaos(
        target=shop.charge, rate=1, seed=7)), False])
    def test_one_variant(chaotic):
        assert fates() == "01"[chaotic] * 50

    def test_restored():
        assert fates() == "0" * 50
"""
FAILED = {"passed": 5, "failed": 1, "errors": 1}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with an app, whose tests load this plugin and no other."""
    monkeypatch.setenv("PYTHONPATH", import_path())
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "resilience.testing.fixtures")
    pytester.makepyfile(shop="def charge():\n    return 'charged'")
    return pytester


def marked(result: pytest.RunResult) -> tuple[str, str]:
    """Return which calls of `test_marked` failed, and the arguments that repeat it."""
    said = result.stdout.str()
    [fates] = re.findall(r"^fates: (\d+)", said, re.MULTILINE)
    [repeat] = re.findall(r"^to repeat it: pytest (\S+::test_marked .*)", said, re.MULTILINE)
    return fates, repeat


def test_failed_test_says_how_its_chaos_is_repeated(suite: pytest.Pytester) -> None:
    """The command in the report lets the same calls fail, and all is restored in between."""
    suite.makepyfile(test_shop=CHAOTIC)

    first = suite.runpytest_subprocess()

    first.assert_outcomes(**FAILED)
    fates, repeat = marked(first)
    first.stdout.fnmatch_lines([f"shop.charge: {fates.count('1')} of 50 calls failed"])
    assert repeat.startswith("test_shop.py::test_marked --chaos-seed=")
    assert marked(suite.runpytest_subprocess(*repeat.split())) == (fates, repeat)
    assert marked(suite.runpytest_subprocess(repeat.split()[0]))[0] != fates


def test_chaos_works_with_xdist(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds reach the report, and mistakes are errors of the collection, as without it."""
    monkeypatch.setenv("PYTEST_PLUGINS", "resilience.testing.fixtures,xdist.plugin")
    suite.makepyfile(test_shop=CHAOTIC)

    result = suite.runpytest_subprocess("-n2")

    result.assert_outcomes(**FAILED)
    assert marked(result)
    suite.makepyfile(test_wrong="import pytest\n@pytest.mark.chaos(rate=30)\ndef test_it(): pass")
    wrong = suite.runpytest_subprocess("-n1", "test_wrong.py")
    wrong.stdout.fnmatch_lines(["*test_wrong.py::test_it: marker chaos: rate must be*got 30*"])


def test_wrong_marker_is_an_error_at_collection(suite: pytest.Pytester) -> None:
    """It names the test, the value and the mend; no test runs."""
    suite.makepyfile(
        test_rate="""
            import pytest

            @pytest.mark.chaos(rate=1.5)
            def test_rate(): pass
        """,
        test_target="""
            import pytest

            @pytest.mark.chaos(target="htpx")
            class TestTarget:
                def test_it(self): pass
        """,
        test_position="""
            import pytest

            @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.chaos(0.5)), 2])
            def test_position(n): pass
        """,
        test_right="def test_right(): pass",
    )

    result = suite.runpytest_subprocess()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines_random([
        "*test_rate.py::test_rate: marker chaos: rate must be * got 1.5; 30 % is 0.3",
        "*test_target.py::TestTarget::test_it: marker chaos: 'htpx' is no target; did you mean*",
        "*::test_position[[]1]: marker chaos: takes rate=, target= and seed=, got 0.5",
    ])  # fmt: skip


def test_marker_counts_for_unittest_as_well(suite: pytest.Pytester) -> None:
    """A method of a TestCase takes no fixtures, and has chaos all the same."""
    suite.makepyfile("""
        import unittest, pytest, shop

        class TestShop(unittest.TestCase):
            @pytest.mark.chaos(target="shop.charge", rate=1)
            def test_it(self):
                with self.assertRaises(ConnectionRefusedError):
                    shop.charge()

            @pytest.mark.chaos(rate=2)
            def test_wrong(self): pass
    """)

    result = suite.runpytest_subprocess()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*TestShop::test_wrong: marker chaos: rate must be*got 2*"])


def test_plugin_is_found_by_itself_and_imports_nothing(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that asks for nothing pays for nothing, wherever the library is installed."""
    suite.makepyfile(f"""
        import sys

        def test_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("resilience.testing.fixtures")
            assert not {HEAVY!r} & {{*sys.modules}}
            ours = {{name for name in sys.modules if name.partition(".")[0] == "resilience"}}
            assert ours == {{"resilience", "resilience.exports", "resilience.testing",
                "resilience.testing.fixtures"}}
    """)
    monkeypatch.delenv("PYTEST_PLUGINS")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    suite.makeconftest('pytest_plugins = ["resilience.testing.fixtures"]')  # once more is no error
    others = {one.name for one in entry_points(group="pytest11")} - {"resilience.testing.fixtures"}

    result = suite.runpytest_subprocess(*(f"-pno:{name}" for name in others))

    result.assert_outcomes(passed=1)
