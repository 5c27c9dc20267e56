"""The shop under every fault: its answers are those of docs/truth-table.md."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resilience.testing.process import inherited_env

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "truth-table.md"
SECONDS = 280
WHOLE_SECONDS = 1500
PAIRS_SECONDS = 3000


def prove(*words: str, seconds: float = SECONDS) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a proof of the shop, and the JSON that it prints."""
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "demo.proof", *words, "--json"],
        cwd=ROOT,
        env=inherited_env({}),
        stdout=subprocess.PIPE,
        check=False,
        timeout=seconds,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


def test_endpoint_answers_as_the_truth_table_says_and_a_change_is_named(tmp_path: Path) -> None:
    """Of some rows of the committed table, the one that was changed is named, and no other."""
    row = "| recommendations | recommendations cold | REDUCED |"
    table = TABLE.read_text()
    assert row in table
    changed = tmp_path / "table.md"
    changed.write_text(table.replace(row, row.replace("REDUCED", "STALE")))

    forked = ("--calls", "tests.acceptance.forked_shop:CALLS")
    words = (*forked, "--kinds", "error,refused,cold", "--baseline", str(changed))
    code, document = prove("recommendations", *words)

    fault = "recommendations under recommendations cold"
    assert document["wrong"] == [f"{fault}: REDUCED (for_segment), but was STALE (for_segment)"]
    assert len(document["rows"]) == 4
    assert code == 1


@pytest.mark.long
@pytest.mark.timeout(WHOLE_SECONDS)
def test_shop_keeps_all_promises_under_every_fault() -> None:
    """No endpoint breaks a promise under any single fault, and all answer as the table says."""
    code, document = prove("--all", "--baseline", str(TABLE), seconds=WHOLE_SECONDS)

    assert document["wrong"] == []
    assert code == 0


@pytest.mark.long
@pytest.mark.timeout(PAIRS_SECONDS)
def test_shop_keeps_all_promises_under_every_pair_of_faults_that_can_meet() -> None:
    """Two faults at once break no promise that each of them keeps."""
    code, document = prove("--all", "--pairs", seconds=PAIRS_SECONDS)

    assert document["wrong"] == []
    assert code == 0
