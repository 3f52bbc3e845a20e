"""The programs of benchmarks/gpu: machine code in libraries, the lock, and steps with time limits."""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tarfile
from pathlib import Path

import pytest
from benchmarks.gpu import bench, bundle, call
from benchmarks.gpu.machine_code import CODE, PTX, Entry, blanked, fat_binaries


def entry(kind: int, architecture: int, body: bytes) -> bytes:
    header = struct.pack("<HHIQ", kind, 0, 64, len(body)).ljust(28, b"\0") + struct.pack("<I", architecture)
    return header.ljust(64, b"\0") + body


def fat_binary(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_code_of_other_architectures_is_blanked_and_nothing_moves() -> None:
    first = fat_binary(
        entry(CODE, 80, b"older" * 16), entry(CODE, 90, b"this." * 16), entry(PTX, 90, b"text." * 16)
    )
    second = fat_binary(entry(CODE, 90, b"float_e4m3".ljust(80)))
    data = b"\x7fELF" + first + b"between" + second + b"\x50\xed\x55\xba after"
    assert list(fat_binaries(data)) == [
        [Entry(CODE, 80, 84, 80), Entry(CODE, 90, 228, 80), Entry(PTX, 90, 372, 80)],
        [Entry(CODE, 90, 539, 80)],
    ]
    kept = blanked(data, 90)
    assert len(kept) == len(data)
    assert (kept[84:164], kept[228:308], kept[372:452]) == (bytes(80), b"this." * 16, bytes(80))
    assert kept[539:619] == bytes(80)  # FP8
    unchanged = [(0, 84), (164, 228), (308, 372), (452, 539), (619, len(data))]
    assert all(kept[start:end] == data[start:end] for start, end in unchanged)


def test_small_ptx_without_code_for_the_architecture_stays_for_the_driver() -> None:
    entries = (entry(CODE, 75, b"older" * 4), entry(CODE, 80, b"newer" * 4), entry(PTX, 80, b"text." * 4))
    data = fat_binary(*entries)
    kept = blanked(data, 90)
    assert kept.count(b"text.") == 4 and b"older" not in kept and b"newer" not in kept
    assert b"text." not in blanked(fat_binary(*entries[1:]), 90)  # not of three programs


def test_versions_are_those_of_the_lock() -> None:
    versions = bundle.locked("a-b==1.2 \\\n    --hash=sha256:00\nc==3.0+cpu ; python_version < '3.13' \\\n")
    assert versions == {"a-b": "1.2", "c": "3.0+cpu"}
    assert bundle.requirements(["c", "a-b", "other"], versions) == ["c==3.0+cpu", "a-b==1.2", "other"]
    lock = bundle.locked(bundle.LOCK.read_text())
    needed = {*bundle.PACKAGES.read_text().split(), "vllm", "ray", "deepspeed"}
    assert needed <= lock.keys()


def test_archives_hold_what_the_programs_import() -> None:
    files = bundle.project_files()
    wanted = {
        "platform/sftlab/cli/app.py",
        "tests/gpu/conftest.py",
        "jobs/configs/tiny.yaml",
        "pyproject.toml",
    }
    assert wanted <= {*files}
    assert not any(name.startswith(("docs/", "requirements/")) for name in files)


def test_archives_are_unpacked_and_the_chosen_vllm_comes_first(tmp_path: Path) -> None:
    (tmp_path / "content").write_text("x")
    for name in ("project", "packages", "libraries", "vllm-0.10.1", "vllm-0.10.1-attention", "vllm-0.8.0"):
        with tarfile.open(tmp_path / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(tmp_path / "content", arcname=f"module/{name}")
    site = tmp_path / "site"
    call.unpack(tmp_path, site)
    found = sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file())
    assert found == [
        "packages/module/libraries",
        "packages/module/packages",
        "vllm-0.10.1/module/vllm-0.10.1",
        "vllm-0.10.1/module/vllm-0.10.1-attention",
        "vllm-0.8.0/module/vllm-0.8.0",
    ]
    assert call.search_path(site, None)[:2] == [str(site / "vllm-0.10.1"), str(site / "packages")]
    assert call.search_path(site, "0.8.0")[0] == str(site / "vllm-0.8.0")
    assert call.search_path(tmp_path / "none", None)[0] == str(call.ROOT / "platform")


def test_modules_that_are_not_installed_are_named() -> None:
    asked = ["json", "no_such_module", "os.path", "no.such"]
    assert call.lacking(dict(os.environ), asked) == ["no_such_module", "no.such"]


def step(tmp_path: Path, code: str, limit: float = 20.0) -> bool:
    running = call.Running(
        call.Step("one", "", limit), [sys.executable, "-c", code], tmp_path / "log.txt", dict(os.environ)
    )
    return running.finish(limit)


def test_a_step_prints_its_rows_and_ends_at_its_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "GRACE", 0.1)
    assert step(tmp_path, "print('noise'); print('## {\"a\": 1}')")
    shown = capsys.readouterr().out
    assert '## {"a": 1}' in shown and "noise" not in shown
    assert not step(tmp_path, "print('why'); raise SystemExit(3)")
    assert "one: 3" in (shown := capsys.readouterr().out) and "why" in shown
    assert step(tmp_path, "print('0.8 of x (wanted: at least 0.95)'); raise SystemExit(1)")
    assert not step(tmp_path, "import time; time.sleep(60)", 0.1)
    assert "one: over its limit" in capsys.readouterr().out


def test_steps_for_which_no_time_is_left_are_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(
        work=tmp_path, site=tmp_path / "site", vllm=None, seconds=0.0, cpu=True, data=None
    )
    assert call.run(call.steps_of(1, [], []), options) == ["inputs", "restore"]
    shown = capsys.readouterr().out
    assert "no time left for restore" in shown and "->" not in shown


def test_labels_choose_steps() -> None:
    def labels(*given: list[str]) -> list[list[str]]:
        return [[one.label for one in group] for group in call.steps_of(1, *given)]

    assert labels([], []) == [["inputs"], ["restore"]]
    assert labels(["restore"], []) == labels([], ["inputs"]) == [["restore"]]


def test_every_step_is_a_program() -> None:
    programs = {path.stem for path in Path(bundle.__file__).parent.glob("*.py")}
    steps = [one for groups in call.CALLS.values() for group in groups for one in group]
    assert {one.words.split()[0] for one in steps} <= programs
    assert len({one.label for one in steps}) == len(steps)


def test_a_failed_part_is_a_row_and_the_next_part_runs(tmp_path: Path) -> None:
    made = bench.Bench(tmp_path, cpu=True)
    with made.part("first"):
        raise ValueError("why")
    with made.part("second"):
        made.row("done", value=2)
    rows = [json.loads(line) for line in (tmp_path / bench.RESULTS).read_text().splitlines()]
    assert made.failed == ["first"]
    assert (rows[0]["step"], rows[0]["failed"]) == ("first", "ValueError('why')")
    assert rows[1] == {"step": "done", "value": 2}
