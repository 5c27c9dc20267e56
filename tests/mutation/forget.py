"""Discard verdicts on mutants whose tests have changed, so that mutmut tries them again.

Run by `make mutants` before `mutmut run`. By itself, mutmut tries a mutant again only when the
mutated function has changed: a survivor would stay one, whatever tests are written.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import mangled_name_from_mutant_name

from tests.mutation.__main__ import KILLED, mutants

RUN = Path("mutants")
STATS = RUN / "mutmut-stats.json"
DIGESTS = RUN / "tests.json"
"""The digests of the last run: of each test, and of the rest of each file of tests or helpers."""


def main() -> None:
    """Compare the tests with those of the last run; if a helper has changed, discard everything."""
    files = config().pytest_add_cli_args_test_selection
    before = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    now = {name: digest for path in sources(files) for name, digest in digests(path)}
    changed = {name for name, digest in before.items() if now.get(name) != digest}
    if not STATS.exists() or not before or any(not is_test(name, files) for name in changed):
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir()
    elif now != before:
        discard(changed)
    DIGESTS.write_text(json.dumps(now, indent=1))


def sources(files: Collection[str]) -> list[Path]:
    """Return the test *files*, and the helpers in their folders and in `tests/` itself."""
    beside = {path for file in files for path in Path(file).parent.glob("*.py")}
    helpers = {path for path in beside if not path.name.startswith("test_")}
    return sorted({*map(Path, files), *helpers, *Path("tests").glob("*.py")})


def digests(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of each test in a file, and of the rest of the file without its imports."""
    rest = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{path}::{node.name}", digest(ast.unparse(node))
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            rest.append(ast.unparse(node))
    yield str(path), digest("\n".join(rest))


def digest(text: str) -> str:
    """Return a digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_test(name: str, files: Collection[str]) -> bool:
    """Tell whether the digest called *name* is of a test or of the rest of a file of tests."""
    return name.partition("::")[0] in files


def discard(changed: Collection[str]) -> None:
    """Discard the verdicts on all functions that *changed* tests call, and on all survivors."""
    stats = json.loads(STATS.read_text())
    called = set()
    for function, tests in stats["tests_by_mangled_function_name"].items():
        kept = [test for test in tests if not has_changed(test, changed)]
        if len(kept) < len(tests):
            called.add(function)
            tests[:] = kept
    for test in list(stats["duration_by_test"]):
        if has_changed(test, changed):
            del stats["duration_by_test"][test]  # mutmut runs it again, as a new one
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, status in list(mutants(path)):
            if status not in KILLED or mangled_name_from_mutant_name(name) in called:
                data.exit_code_by_key[name] = None
        data.save()
    # Mutmut would try everything again when a test file is added, which is dealt with here.
    stats["config_fingerprint"]["test_selection"] = config().config_fingerprint()["test_selection"]
    STATS.write_text(json.dumps(stats))


def has_changed(test: str, changed: Collection[str]) -> bool:
    """Tell whether the test with this node id, or the rest of its file, is in *changed*."""
    return test.partition("[")[0] in changed or test.partition("::")[0] in changed


if __name__ == "__main__":
    main()
