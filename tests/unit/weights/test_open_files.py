"""Files that are opened on use: how many stay open, and that threads never lose the one they read."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from sftlab.weights.ladder import restore
from sftlab.weights.open_files import OpenFiles
from sftlab.weights.shards import Checkpoint
from tests.support.weights_models import same_bits, stored, write_checkpoint


def count_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_more_than_the_limit_stay_open_and_each_is_opened_again(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_text(name)
    files, before = OpenFiles(most=2), count_open()
    for name in "abcdabca":
        with files.use(tmp_path / name) as file:
            assert os.pread(file, 9, 0) == name.encode()
        assert count_open() - before <= 2
    files.close()
    assert count_open() == before


def test_a_file_in_use_stays_open_beyond_the_limit(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    files = OpenFiles(most=1)

    def read(number: int) -> bool:
        with files.use(tmp_path / "abc"[number % 3]) as file:
            return all(os.pread(file, 9, 0) == b"abc"[number % 3 : number % 3 + 1] for _ in range(20))

    with files.use(tmp_path / "a") as held, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(300)))
        assert os.pread(held, 9, 0) == b"a"
    files.close()


def test_a_ladder_of_many_models_and_shards_needs_few_open_files(tmp_path: Path) -> None:
    tensors = {f"model.layers.{number}.mlp.up_proj.weight": torch.full((2, 2), 1.0) for number in range(40)}
    base = write_checkpoint(tmp_path / "base", tensors, shards=40)
    tuned = write_checkpoint(tmp_path / "tuned", {name: x + 1 for name, x in tensors.items()}, shards=40)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count_open() + 40, limit[1]))
    try:
        restore(base, tuned, ",".join(map(str, range(1, 61))), tmp_path / "out")
        with Checkpoint.open(tuned) as opened:
            assert len(list(opened.tensors())) == 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    expected = stored(tmp_path / "out/restored-50")
    assert sum(float(tensor.sum()) == 4.0 for tensor in expected.values()) == 20
    assert all(same_bits(expected[name], tensors[name]) for name in sorted(tensors)[:20])
