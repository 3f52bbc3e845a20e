"""Generated programs in their sandbox. Skipped where the machine makes none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.measurements import sandbox
from sftlab.measurements.sandbox import Limits, Ran, require_sandbox, run_program

ADD = "def add(a, b):\n    return a + b"


@pytest.fixture(autouse=True, scope="module")
def makes_one() -> None:
    try:
        require_sandbox()
    except UserError as error:
        pytest.skip(str(error))


def ran(answer: str, test: str = "", **limits: float) -> Ran:
    return run_program(answer, test, Limits(seconds=limits.get("seconds", 5), memory_mib=256))


def test_program_passes_and_fails_by_its_test() -> None:
    assert ran(ADD, "assert add(1, 2) == 3") == Ran(parsed=True, passed=True)
    assert ran(ADD, "assert add(1, 2) == 4") == Ran(parsed=True, passed=False)
    assert ran("def add(a, b) return a") == Ran(parsed=False, passed=False)


@pytest.mark.parametrize(
    "way_out", ["import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"]
)
def test_program_that_ends_early_has_not_passed(way_out: str) -> None:
    assert ran(way_out, "assert False") == Ran(parsed=True, passed=False)


def test_endless_program_is_ended() -> None:
    assert ran("while True: pass", seconds=0.5) == Ran(parsed=True, passed=False)
    assert ran("import time; time.sleep(60)", seconds=0.5) == Ran(parsed=True, passed=False)


def test_memory_is_limited() -> None:
    assert not ran("x = bytearray(2**30)").passed
    assert ran("x = bytearray(2**20)").passed


def test_files_of_the_machine_are_neither_seen_nor_changed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept", encoding="utf-8")
    assert not ran(f"open({str(kept)!r}).read()").passed
    assert not ran(f"open({sys.prefix + '/x'!r}, 'w')").passed
    assert not ran("open('/usr/x', 'w')").passed
    assert ran("open('/tmp/x', 'w').write('here')").passed
    assert kept.read_text(encoding="utf-8") == "kept"


def test_there_is_no_network_and_there_are_no_other_processes() -> None:
    assert not ran("import socket; socket.create_connection(('127.0.0.1', 1), 1)").passed
    devices = "import socket\nnames = [name for _, name in socket.if_nameindex()]"
    assert ran(devices, "assert names == ['lo'], names").passed
    assert not ran("import os; os.kill(1, 0); os.listdir('/proc/1')").passed


def test_machine_without_the_tools_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TOOLS", ("no-such-tool",))
    sandbox.runs_as_nobody.cache_clear()
    try:
        with pytest.raises(UserError, match="no-such-tool not found"):
            require_sandbox()
    finally:
        sandbox.runs_as_nobody.cache_clear()
