"""The short form of `make fuzz`: some damaged inputs for every reader, drawn by hypothesis."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftlab.errors import UserError
from tests.fuzz import seeds
from tests.fuzz.mutate import altered, mutated
from tests.fuzz.reader import Reader
from tests.fuzz.readers import all_readers
from tests.fuzz.run import TooLong, deadline, outcome

READERS = {reader.name: reader for reader in all_readers()}
INPUTS = 40
SLOW = {"MLflow answers": 10, "sweep file": 25}
FREE = (
    "study file",
    "runtime file",
    "templates",
    "store record",
    "training record",
    "shard index",
    "packed model",
    "model config",
)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
DOCUMENTS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
QUIET = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    max_examples=INPUTS,
)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_returns_or_says_what_is_wrong_whatever_it_is_given(name: str) -> None:
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        for data in reader.seeds:
            assert outcome(reader, data, Path(folder) / "in", 120) is None, "a valid input is refused"

        @settings(QUIET, max_examples=SLOW.get(name, INPUTS))
        @given(st.integers(0, 2**64))
        def feed(seed: int) -> None:
            outcome(reader, reader.input(str(seed)), Path(folder) / "in")

        feed()


@pytest.mark.parametrize("name", FREE)
def test_documents_of_any_shape_are_read_or_refused(name: str) -> None:
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:

        @QUIET
        @given(DOCUMENTS)
        def feed(document: object) -> None:
            outcome(reader, seeds.json_text(document), Path(folder) / "in")

        feed()


def test_equal_seeds_make_equal_inputs_and_most_inputs_are_damaged() -> None:
    for reader in READERS.values():
        inputs = [reader.input(str(number)) for number in range(40)]
        assert inputs == [reader.input(str(number)) for number in range(40)], reader.name
        assert len(set(inputs) - set(reader.seeds)) > 20, reader.name


def test_mutations_change_bytes_and_documents() -> None:
    draw = Random(0)
    data = seeds.json_text(seeds.RECORD)
    assert sum(mutated(data, [data], draw) != data for _ in range(100)) > 90
    assert sum(altered(seeds.RECORD, draw) != seeds.RECORD for _ in range(100)) > 90


def test_another_exception_than_a_user_error_is_a_finding(tmp_path: Path) -> None:
    def wrong(data: bytes, _folder: Path) -> object:
        if data == b"bad":
            raise KeyError(data)
        raise UserError("no such thing")

    reader = Reader("toy", wrong, [b"bad"], lambda _draw: b"bad")
    assert outcome(reader, b"x", tmp_path / "in") == "refused"
    with pytest.raises(KeyError):
        outcome(reader, b"bad", tmp_path / "in")


def test_an_input_that_takes_too_long_is_a_finding() -> None:
    def forever() -> None:
        while True:
            pass

    with pytest.raises(TooLong), deadline(0.2):
        forever()
