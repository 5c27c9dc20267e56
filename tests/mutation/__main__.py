"""Say which share of the mutants the tests kill, by module and in all, and show the survivors.

Run by `make mutants` behind `mutmut run`, whose results it reads. A survivor that does the same as
the product is listed, with the reason, in equivalent.toml, and is counted neither way.
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
BROKEN_OFF = 255
"""Pytest itself ended in an error, as when a thread that was cut ends badly: no test has failed."""
SHARE_MIN, SHARE_MIN_EACH = 0.90, 0.80


def main() -> int:
    """Print it all; return 0 if enough are killed, of all together and of each module."""
    same = {(one["was"], one["now"]) for one in tomllib.loads(EQUIVALENT.read_text())["equivalent"]}
    every, low = Counter[str](), []
    for path in sorted(walk_mutatable_files()):
        counts = Counter[str]()
        for name, status in mutants(path):
            diff = "" if status in KILLED | UNKNOWN else get_diff_for_mutant(name, path=path)
            kind = "killed" if status in KILLED else status
            kind = "equivalent" if changed(diff) in same else kind
            counts[kind] += 1
            if kind not in {"killed", "equivalent"} | UNKNOWN:
                print(f"{name}: {kind}\n{shown(diff)}\n")
        every += counts
        print(f"{share(counts):6.1%}  {path}  {said(counts)}\n")
        low += [path] if share(counts) < SHARE_MIN_EACH else []
    print(f"{share(every):6.1%}  all  {said(every)}")
    print(f"under {SHARE_MIN_EACH:.0%}: {', '.join(map(str, low)) or 'none'}")
    return int(bool(low) or share(every) < SHARE_MIN)


def mutants(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the mutants of a file, and what became of each."""
    data = SourceFileMutationData(path=path)
    data.load()
    for name, code in data.exit_code_by_key.items():
        yield name, "broken off" if code == BROKEN_OFF else status_by_exit_code[code]


def changed(diff: str) -> tuple[str, str]:
    """Return the lines that a mutant changes, before and after, without their indentation."""
    lines = diff.splitlines()[2:]
    was, now = ([one[1:].strip() for one in lines if one.startswith(sign)] for sign in "-+")
    return " ".join(was), " ".join(now)


def shown(diff: str) -> str:
    """Return the changed lines of a diff for people."""
    return "\n".join(one for one in diff.splitlines()[2:] if one.startswith(("-", "+")))


def share(counts: Counter[str]) -> float:
    """Return the share of killed mutants, of those that differ from the product."""
    whole = counts.total() - counts["equivalent"]
    return counts["killed"] / whole if whole else 1.0


def said(counts: Counter[str]) -> str:
    """Return the counts for people."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


if __name__ == "__main__":
    config()
    sys.exit(main())
