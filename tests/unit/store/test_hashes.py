"""Remembered hashes of files: a speed-up that never gives another file's content."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sftlab.store import hashes
from sftlab.store.hashes import FileHashes, Stamp, file_system, steady_hash
from tests.support.refusals import refused

OLD = 1_000_000_000_123_456_789  # ns; a time of modification long ago


def remembering(folder: Path, machine: str = "this boot", **settings: Any) -> FileHashes:
    """Remembers files of any size, on any file system; 50 ms are more than this machine's file systems' granularity."""
    given = {"smallest": 1, "settle_seconds": 0.05, "keeps_ctime": lambda _: True} | settings
    return FileHashes(folder / "hashes.json", machine=machine, **given)


def content(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def hash_of(path: Path, folder: Path, **settings: Any) -> str:
    (found,) = remembering(folder, **settings).of([path])
    return found.sha256


def is_remembered(path: Path, folder: Path) -> bool:
    return str(path.resolve()) in json.loads((folder / "hashes.json").read_text())["files"]


def write(path: Path, text: str, mtime_ns: int = OLD) -> Path:
    path.write_text(text)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def in_place(path: Path) -> None:
    write(path, "other")


def by_rename(path: Path) -> None:
    write(path.with_name("new"), "other").replace(path)


def by_hard_link(path: Path) -> None:
    write(path.with_name("new"), "other")
    path.unlink()
    os.link(path.with_name("new"), path)


def through_another_link(path: Path) -> None:
    os.link(path, path.with_name("second"))
    write(path.with_name("second"), "other")


def by_move_within_folder(path: Path) -> None:
    path.rename(path.with_name("away"))
    by_rename(path)


def by_symlink(path: Path) -> None:
    write(path.with_name("new"), "other")
    path.unlink()
    path.symlink_to("new")


def after_a_copy_with_times(path: Path) -> None:
    write(path.with_name("new"), "other")
    shutil.copy2(path.with_name("new"), path)


@pytest.mark.parametrize(
    "mtime_ns", [OLD, OLD // 10**9 * 10**9, 4_000_000_000 * 10**9], ids=["old", "whole", "future"]
)
@pytest.mark.parametrize(
    "swap",
    [
        in_place,
        by_rename,
        by_hard_link,
        through_another_link,
        by_move_within_folder,
        by_symlink,
        after_a_copy_with_times,
    ],
)
def test_another_content_of_the_same_size_and_time_has_its_hash(
    tmp_path: Path, swap: Callable[[Path], None], mtime_ns: int
) -> None:
    path = write(tmp_path / "weights", "first", mtime_ns)
    assert hash_of(path, tmp_path) == content(path) and is_remembered(path, tmp_path)
    swap(path)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    assert path.stat().st_size == 5 and path.stat().st_mtime_ns == mtime_ns
    assert hash_of(path, tmp_path) == sha256(b"other").hexdigest()


def test_a_linked_folder_that_is_switched_has_the_hash_of_its_new_target(tmp_path: Path) -> None:
    for name, text in (("a", "first"), ("b", "other")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "w", text)
    link = tmp_path / "current"
    for name in ("a", "b", "a"):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert hash_of(link / "w", tmp_path) == content(tmp_path / name / "w")


def test_an_unchanged_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = write(tmp_path / "large", "12345678"), write(tmp_path / "small", "123")
    read: list[str] = []

    def counted(path: Path) -> hashes.Hashed:
        read.append(path.name)
        return steady_hash(path)

    monkeypatch.setattr(hashes, "steady_hash", counted)
    for _ in range(2):
        found = remembering(tmp_path, smallest=8).of([large, small])
        assert [file.sha256 for file in found] == [content(large), content(small)]
    assert read == ["small", "large", "small"]
    remembering(tmp_path).forget()
    assert remembering(tmp_path, smallest=8).of([large])[0].sha256 == content(large) and read[-1] == "large"


def _with_ctime(monkeypatch: pytest.MonkeyPatch, changed: Callable[[int], int]) -> None:
    right = hashes.stamp_of

    def other(found: os.stat_result) -> Stamp:
        now = right(found)
        return Stamp(now.device, now.inode, now.bytes, now.mtime_ns, changed(now.ctime_ns))

    monkeypatch.setattr(hashes, "stamp_of", other)


@pytest.mark.parametrize(
    "changed",
    [lambda ns: ns // 10**9 * 10**9, lambda ns: ns + 3600 * 10**9],
    ids=["whole seconds", "an hour ahead"],
)
def test_coarse_and_future_times_of_change_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Callable[[int], int]
) -> None:
    _with_ctime(monkeypatch, changed)
    path = write(tmp_path / "w", "first")
    for text in ("first", "other", "third"):
        write(path, text)
        assert hash_of(path, tmp_path) == content(path)
        assert not (tmp_path / "hashes.json").exists() or not is_remembered(path, tmp_path)


def test_a_change_within_a_tick_of_the_clock_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = 10**8
    _with_ctime(monkeypatch, lambda ns: ns // tick * tick + 1)
    path = tmp_path / "w"
    for text in ("first", "other", "third"):
        write(path, text)
        assert hash_of(path, tmp_path, settle_seconds=0.15) == sha256(text.encode()).hexdigest()
        assert is_remembered(path, tmp_path)


def test_a_file_system_that_keeps_no_time_of_change_is_read_every_time(tmp_path: Path) -> None:
    path = write(tmp_path / "w", "first")
    assert hash_of(path, tmp_path, keeps_ctime=lambda _: False) == content(path)
    assert not (tmp_path / "hashes.json").exists()


class Meddling:
    """A SHA-256 during whose computation the file is written to, so many times."""

    def __init__(self, path: Path, left: list[int]) -> None:
        self.path, self.left, self.digest = path, left, sha256()

    def update(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        if self.left[0]:
            self.left[0] -= 1
            time.sleep(0.02)  # more than the granularity of the time of change
            write(self.path, f"then{self.left[0]}")

    def hexdigest(self) -> str:
        return self.digest.hexdigest()


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "w", "first")
    monkeypatch.setattr(hashes, "sha256", partial(Meddling, path, [1]))
    assert steady_hash(path).sha256 == content(path) == sha256(b"then0").hexdigest()


def test_a_file_that_never_rests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w", "first")
    monkeypatch.setattr(hashes, "sha256", partial(Meddling, path, [9]))
    with refused("changes while it is read"):
        steady_hash(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1}', '{"files": [], "folders": 3}', "[" * 100_000, "\xff"]
)
def test_a_damaged_memory_is_computed_again(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "w", "first")
    hash_of(path, tmp_path)
    remembered = (tmp_path / "hashes.json").read_text()
    (tmp_path / "hashes.json").write_text(text, encoding="latin-1")
    assert hash_of(path, tmp_path) == content(path)
    assert (tmp_path / "hashes.json").read_text() == remembered


@pytest.mark.parametrize("field", ["sha256", "checksum", "inode", "ctime_ns", "machine", None])
def test_a_damaged_entry_is_not_believed(tmp_path: Path, field: str | None) -> None:
    path, other = write(tmp_path / "w", "first"), write(tmp_path / "v", "other")
    hash_of(path, tmp_path)
    hash_of(other, tmp_path)
    known = json.loads((tmp_path / "hashes.json").read_text())
    entry = known["files"][str(path)]
    if field is None:  # the other file's entry
        known["files"][str(path)] = known["files"][str(other)]
    else:
        entry[field] = entry[field] + 1 if isinstance(entry[field], int) else entry[field][::-1]
    (tmp_path / "hashes.json").write_text(json.dumps(known))
    assert hash_of(path, tmp_path) == content(path)


def test_another_machine_s_memory_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "w", "first")
    hash_of(path, tmp_path, machine="another boot")
    known = json.loads((tmp_path / "hashes.json").read_text())
    wrong = remembering(tmp_path, machine="another boot")
    known["files"][str(path)] = wrong.entry(path, hashes.Hashed(path, "0" * 64, hashes.stamp(path)))
    (tmp_path / "hashes.json").write_text(json.dumps(known))
    assert hash_of(path, tmp_path, machine="another boot") == "0" * 64  # the entry itself is whole
    assert hash_of(path, tmp_path) == content(path)


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:45 / /shared rw - nfs4 server:/export rw
31 22 0:46 / /shared/my\040models rw master:3 - fuse.sshfs host: rw
32 22 0:47 / /over rw - ext4 /dev/vdb rw
33 32 0:48 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/models/a", "ext4"),
        ("/shared/a", "nfs4"),
        ("/sharedness/a", "ext4"),
        ("/shared/my models/a", "fuse.sshfs"),
        ("/over/a", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_mount_above_it(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind
    assert file_system(Path(path), "no mounts here\n - \n") is None
