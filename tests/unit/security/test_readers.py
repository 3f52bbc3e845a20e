"""Bombs, links and pickles: what a stranger's file must not be able to do."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sftlab.config.documents import load_yaml, parse_yaml
from sftlab.errors import UserError
from sftlab.facts.entity_questions import MAX_MEMBER_BYTES, read_tables
from sftlab.facts.templates import published_topics
from sftlab.facts.user_facts import read_user_tables
from sftlab.reporting.page import csv_address
from sftlab.training import safe_load as restricted
from sftlab.weights.shards import Checkpoint
from tests.support.refusals import refused

MEMBER = "dataset/train/P17.train.json"


@contextmanager
def memory(megabytes: int) -> Iterator[None]:
    """No more address space than now and this much."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def lying_zip(content: bytes, unpacked: int) -> bytes:
    """An archive whose member unpacks to `content` and says that it has `unpacked` bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MEMBER, content)
    data = bytearray(out.getvalue())
    for header, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(header)
        data[at + offset : at + offset + 4] = unpacked.to_bytes(4, "little")
    return bytes(data)


def test_a_zip_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "eq.zip"
    path.write_bytes(lying_zip(bytes(120 * 2**20), 100))
    assert path.stat().st_size < 2**20
    with memory(60), pytest.raises(UserError, match="is damaged"):
        read_tables(path, published_topics(), {})


def test_a_zip_that_owns_up_to_its_size_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "eq.zip"
    path.write_bytes(lying_zip(b"[]", MAX_MEMBER_BYTES + 1))
    with pytest.raises(UserError, match="would unpack to 16,777,217 bytes"):
        read_tables(path, published_topics(), {})


def test_a_link_out_of_an_unpacked_archive_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("[]")
    folder = tmp_path / "eq" / "train"
    folder.mkdir(parents=True)
    (folder / "P17.train.json").symlink_to(secret)
    with refused("is no file of this folder", place="P17.train.json"):
        read_tables(tmp_path / "eq", published_topics(), {})
    (folder / "P17.train.json").unlink()
    os.mkfifo(folder / "P17.train.json")
    with refused("is no file of this folder", place="P17.train.json"):
        read_tables(tmp_path / "eq", published_topics(), {})


def test_aliases_of_aliases_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with memory(200), pytest.raises(UserError, match="aliases written out"):
        parse_yaml("\n".join(lines), "bomb")
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    with memory(200), pytest.raises(UserError, match="aliases written out"):
        parse_yaml("\n".join(merges), "bomb")
    with pytest.raises(UserError, match="an alias holds itself"):
        parse_yaml("a: &a [*a]", "circle")
    assert parse_yaml("a: &a [1, 2]\nb: *a", "study") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "text", ["1" * 5000, "1:" * 2000 + "1", "0x" + "f" * 5000, "!!int x", "!!bool maybe"]
)
def test_numbers_that_take_an_age_and_wrong_tags_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_yaml(f"a: {text}", "study")


def test_yaml_makes_no_object_of_python(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_yaml(f"!!python/object/apply:os.system ['touch {mark}']", "study")
    assert not mark.exists()


def test_a_file_without_end_is_read_to_a_bound() -> None:
    with memory(200), pytest.raises(UserError, match="characters"):
        load_yaml(Path("/dev/zero"), "give a YAML file.")


@pytest.mark.parametrize("claimed", [2**60, 2**31, 99_999_999])
def test_a_header_that_claims_more_than_the_file_holds_is_not_believed(tmp_path: Path, claimed: int) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(claimed.to_bytes(8, "little") + b"{}")
    with memory(100), pytest.raises(UserError, match="truncated or no safetensors"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [([0, 4], [0, 4]), ([0, 4], [2, 6]), ([0, 4], [8, 12]), ([4, 8], [8, 12])]
)
def test_tensors_that_overlap_or_leave_gaps_are_refused(
    tmp_path: Path, first: list[int], second: list[int]
) -> None:
    """A small file could otherwise name one stretch of bytes a million times."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": offsets}
        for name, offsets in (("a", first), ("b", second))
    }
    text = json.dumps(header).encode()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + bytes(max(first[1], second[1]))
    )
    with pytest.raises(UserError, match="gaps"):
        Checkpoint.open(tmp_path)


def test_a_small_table_of_many_rows_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """One long text, repeated by its number in a dictionary: 60 kB of file, gigabytes of rows."""
    rows, text = 200_000, "x" * 60_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    names = pa.array(["a"] * rows).dictionary_encode()
    pq.write_table(pa.table({"subject": names, "object": column, "topic": names}), tmp_path / "f.parquet")
    assert (tmp_path / "f.parquet").stat().st_size < 2**18
    with memory(700), pytest.raises(UserError, match="has no templates"):
        read_user_tables(tmp_path / "f.parquet", published_topics())


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_small_table_of_long_texts_is_refused_without_being_unpacked(
    tmp_path: Path, dictionary: bool
) -> None:
    """17 kB of file, 400 MB of texts; with a dictionary one text, as long as may be, in every row."""
    names = pa.array(["a"] * 80)
    texts: pa.Array = pa.array(["x" * 5_000_000] * 80)
    if dictionary:
        texts = pa.DictionaryArray.from_arrays(pa.array([0] * 80, pa.int32()), pa.array(["x" * 16_000_000]))
    table = pa.table({"subject": names, "object": texts, "topic": names})
    # Without Arrow's schema both are read as plain texts.
    pq.write_table(
        table, tmp_path / "f.parquet", compression="zstd", use_dictionary=dictionary, store_schema=False
    )
    assert (tmp_path / "f.parquet").stat().st_size < 2**18
    why = "no templates" if dictionary else r"field 'object': unpacks to 400,\d+,\d+ bytes"
    del texts, table
    with memory(700), pytest.raises(UserError, match=why):
        read_user_tables(tmp_path / "f.parquet", published_topics())


def test_columns_of_other_types_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"subject": pa.array([1], pa.timestamp("ns", "x/y"))}), tmp_path / "f.parquet")
    with refused("is a column of type timestamp", place="field 'subject'"):
        read_user_tables(tmp_path / "f.parquet", published_topics())


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_checkpoint_runs_nothing_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted, "known_names", list)
    mark, file = tmp_path / "ran", tmp_path / "states.pt"
    torch.save({"module": Runs(mark)}, file)
    with pytest.raises(UserError, match=r"states.pt: is refused.*system"):
        restricted.load_plain(str(file))
    file.write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(UserError, match="is refused"):
        restricted.load_plain(str(file))
    assert not mark.exists()
    torch.save({"module": {"w": torch.ones(2)}, "step": 3}, file)
    assert restricted.load_plain(str(file))["step"] == 3


def test_a_damaged_checkpoint_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted, "known_names", list)
    file = tmp_path / "states.pt"
    torch.save({"module": {"w": torch.arange(1000.0)}}, file)
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[: len(whole) // 2], b"", b"x" * 50):
        file.write_bytes(damaged)
        with refused("is a damaged checkpoint|is refused", place="states.pt", advice="(?i)delete"):
            restricted.load_plain(str(file))
    with pytest.raises(FileNotFoundError):
        restricted.load_plain(str(tmp_path / "none.pt"))


def test_a_name_without_end_in_a_checkpoint_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restricted, "known_names", list)
    file = tmp_path / "states.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02c" + b"x" * 200_000 + b"\ny\n.")
        archive.writestr("a/version", b"3\n")
    started = time.process_time()
    with pytest.raises(UserError, match="is refused") as refused:
        restricted.load_plain(str(file))
    assert time.process_time() - started < 10 and len(str(refused.value)) < 1000


def test_a_formula_in_a_download_stays_text() -> None:
    address = csv_address([{"cell": "=cmd|' /C calc'!A0", "score": -0.5}, {"cell": "b0-n2", "score": 1.0}])
    assert "%27%3Dcmd" in address and "-0.5" in address and "%0Ab0-n2" in address
