"""Print the surviving mutants, and the share that tests kill, of each module and of all together.

Run by `make mutants` after `mutmut run`, whose results it reads. A survivor that behaves like the
product is listed in equivalent.toml with the reason, and does not count.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

EQUIVALENT = Path(__file__).parent / "equivalent.toml"
KILLED = {"killed", "timeout", "segfault"}
UNKNOWN = {"not checked", "check was interrupted by user"}
ERROR_CODE = 255
"""Exit code of a pytest that ended in an error of its own, as after a thread was cut: no test has
failed."""
SHARE_MIN, SHARE_MIN_EACH = 0.90, 0.80


def main() -> int:
    """Print the report; return 0 if enough mutants are killed, of each module and of all."""
    listed = tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    equivalent = {(one["path"], one["was"], one["now"]) for one in listed}
    total, low = Counter[str](), []
    for path in sorted(walk_mutatable_files()):
        counts = Counter[str]()
        for name, status in mutants(path):
            diff = "" if status in KILLED | UNKNOWN else get_diff_for_mutant(name, path=path)
            kind = "killed" if status in KILLED else status
            kind = "equivalent" if (str(path), *change(diff)) in equivalent else kind
            counts[kind] += 1
            if kind not in {"killed", "equivalent"} | UNKNOWN:
                print(f"{name}: {kind}\n{changed_lines(diff)}\n")
        total += counts
        print(f"{share(counts):6.1%}  {path}  {summary(counts)}\n")
        low += [path] if share(counts) < SHARE_MIN_EACH else []
    print(f"{share(total):6.1%}  all  {summary(total)}")
    print(f"under {SHARE_MIN_EACH:.0%}: {', '.join(map(str, low)) or 'none'}")
    return int(bool(low) or share(total) < SHARE_MIN)


def mutants(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each mutant of a file, and its status: mutmut's word, or "error"."""
    data = SourceFileMutationData(path=path)
    data.load()
    for name, code in data.exit_code_by_key.items():
        yield name, "error" if code == ERROR_CODE else status_by_exit_code[code]


def change(diff: str) -> tuple[str, str]:
    """Return the lines that a mutant changes, before and after, without their indentation."""
    lines = diff.splitlines()[2:]
    was, now = ([one[1:].strip() for one in lines if one.startswith(sign)] for sign in "-+")
    return " ".join(was), " ".join(now)


def changed_lines(diff: str) -> str:
    """Return the changed lines of a diff, with their signs."""
    return "\n".join(one for one in diff.splitlines()[2:] if one.startswith(("-", "+")))


def share(counts: Counter[str]) -> float:
    """Return the share of killed mutants among those that are not equivalent."""
    whole = counts.total() - counts["equivalent"]
    return counts["killed"] / whole if whole else 1.0


def summary(counts: Counter[str]) -> str:
    """Return the counts for people."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


if __name__ == "__main__":
    config()
    sys.exit(main())
