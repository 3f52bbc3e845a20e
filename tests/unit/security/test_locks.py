"""Every file that `make setup` may install has its hash in a lock."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;]+")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_of_a_lock_is_a_pin_with_hashes(lock: Path) -> None:
    whole = lock.read_text().replace("\\\n", " ")
    pins = [line.split() for line in whole.splitlines()]
    assert pins
    for pin, *hashes in pins:
        assert PIN.fullmatch(pin), pin
        assert hashes and all(HASH.fullmatch(text) for text in hashes), (
            f"{pin}: no hashes; see CONTRIBUTING.md"
        )
    names = [pin.partition("==")[0].lower().replace("_", "-") for pin, *_ in pins]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_make_setup_installs_nothing_else(profile: str, tmp_path: Path) -> None:
    commands = subprocess.run(
        ["make", "--dry-run", "setup", f"PROFILE={profile}", f"VENV={tmp_path}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    *locked, checkout = re.findall(r"pip install (.*?)(?: \|\||$)", commands, re.MULTILINE)
    assert [re.findall(r"-r (\S+)", options) for options in locked] == [
        ["requirements/build.lock"],
        [f"requirements/{profile}.lock"],
    ]
    assert all({"--no-deps", "--require-hashes", ":all:"} <= set(options.split()) for options in locked)
    # This checkout, built by the locked setuptools.
    assert checkout == "--no-deps --progress-bar off --no-build-isolation -e ."
    assert commands.count("pip ") == 3 and "PIP_NO" not in (ROOT / "Makefile").read_text()
