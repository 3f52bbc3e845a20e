"""What `make setup` says while it installs, with programs in place of Python and pip that do nothing or fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def make_setup(venv: Path, pip_ends_with: int) -> subprocess.CompletedProcess[str]:
    (venv / "bin").mkdir(parents=True)
    pip = venv / "bin" / "python"
    pip.write_text(f"#!/bin/sh\nexit {pip_ends_with}\n")
    pip.chmod(0o755)
    return subprocess.run(
        ["make", "--no-print-directory", "setup", f"VENV={venv}", "PYTHON=true", "PROFILE=cpu"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_setup_says_that_it_takes_minutes_and_shows_no_recipe(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    done = make_setup(venv, pip_ends_with=0)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == f"installing locked packages into {venv}, takes minutes\n"
    assert (venv / ".ready-cpu").exists()


def test_a_setup_that_fails_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    done = make_setup(tmp_path / "venv", pip_ends_with=1)
    assert done.returncode == 2 and "Error" in done.stderr
    assert not (tmp_path / "venv" / ".ready-cpu").exists()
