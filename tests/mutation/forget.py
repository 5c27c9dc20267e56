"""Forget the verdicts that tests have given which have changed since, so that mutmut asks again.

Run by `make mutants` before `mutmut run`. By itself, mutmut tries a mutant again only once the
mutated function has changed: one that survived stays a survivor, whatever tests are written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import mangled_name_from_mutant_name

from tests.mutation.__main__ import KILLED, mutants

RUN = Path("mutants")
STATS = RUN / "mutmut-stats.json"
DIGESTS = RUN / "tests.json"
"""The tests of the last run, by path."""


def main() -> None:
    """Compare the tests with those of the last run; once a helper has changed, forget it all."""
    tests = config().pytest_add_cli_args_test_selection
    before = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    now = digests(tests)
    changed = {path for path in before.keys() | now if before.get(path) != now.get(path)}
    if not STATS.exists() or not changed.issubset(tests):
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir()
    elif changed:
        forget(changed)
    DIGESTS.write_text(json.dumps(now))


def digests(tests: Collection[str]) -> dict[str, str]:
    """Return a digest of each of the *tests*, and of the helpers that lie beside them."""
    beside = {path for test in tests for path in Path(test).parent.glob("*.py")}
    helpers = {path for path in beside if not path.name.startswith("test_")}
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted({*map(Path, tests), *helpers, *Path("tests").glob("*.py")})
    }


def forget(changed: Collection[str]) -> None:
    """Forget what tests in *changed* call and have killed, and whatever no test has killed."""
    stats = json.loads(STATS.read_text())
    called = set()
    for function, tests in stats["tests_by_mangled_function_name"].items():
        kept = [test for test in tests if test.partition("::")[0] not in changed]
        if len(kept) < len(tests):
            called.add(function)
            tests[:] = kept
    for test in list(stats["duration_by_test"]):
        if test.partition("::")[0] in changed:
            del stats["duration_by_test"][test]  # mutmut runs it again, as a new one
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, status in list(mutants(path)):
            if status not in KILLED or mangled_name_from_mutant_name(name) in called:
                data.exit_code_by_key[name] = None
        data.save()
    # Which files are tests is known here, so that another one is no reason to try all again.
    stats["config_fingerprint"]["test_selection"] = config().config_fingerprint()["test_selection"]
    STATS.write_text(json.dumps(stats))


if __name__ == "__main__":
    main()
