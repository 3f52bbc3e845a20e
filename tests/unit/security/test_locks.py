"""Every file that `make setup` may install has its hash in a lock."""

from __future__ import annotations

import re
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


def test_make_setup_installs_nothing_else() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP := .* --no-deps --require-hashes$", text, re.M)
    installs = [line for line in text.splitlines() if "pip install" in line and not line.startswith("PIP :=")]
    assert [line.split("pip install")[1].split() for line in installs] == [
        [
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-e",
            ".",
        ]  # this checkout, built by the locked setuptools
    ]
    assert text.count("$(PIP)") == 2 and "PIP_NO" not in text
