"""`sftlab compare`: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import survey_tables as planted

ROOT = Path(__file__).parents[3]


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from sftlab.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_a_table_becomes_a_page_tables_and_json(tmp_path: Path) -> None:
    rows = [row for row in planted.rows(models=planted.MODELS[:3]) if row[5] in ("quiz", "sums")]
    file = planted.write(tmp_path / "scores.csv", rows)
    done = compare(file, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "scores.csv"
    assert found["page"] == str(tmp_path / "out" / "compare.html")
    assert (tmp_path / "out" / "compare.html").is_file()
    assert (tmp_path / "out" / "tables" / "sets.csv").is_file()
    assert "comparing" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model,data,benchmark,score\nm,base,quiz,x\n",
            "scores.csv, row 2, field 'score': expected a number",
        ),
        ("model,data,benchmrk,score\n", "unknown column 'benchmrk'; did you mean 'benchmark'?"),
    ],
)
def test_what_a_user_can_repair_exits_with_2_and_leaves_nothing(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "scores.csv").write_text(text)
    done = compare(tmp_path / "scores.csv", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert not (tmp_path / "out").exists()
