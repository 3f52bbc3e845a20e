"""Errors of users: their fields, their one form, and about a dozen messages whole."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from sftlab.config.documents import parse_json, parse_yaml
from sftlab.config.overrides import override
from sftlab.errors import Place, UserError, joined, within
from sftlab.store.record import Damaged
from sftlab.studies.load import load_runtime, load_study

TINY = Path(__file__).parents[2] / "jobs" / "configs" / "tiny.yaml"


def raised(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as error:
        call()
    return error.value


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("a.jsonl"), "a.jsonl"),
        (Place("a.jsonl", 3, unit="line"), "a.jsonl, line 3"),
        (Place("a.parquet", 3).of("object"), "a.parquet, row 3, field 'object'"),
        (Place("a.parquet", field="object"), "a.parquet, field 'object'"),
        (Place("study.yaml", field="sft.epochs", unit="key"), "study.yaml: sft.epochs"),
    ],
)
def test_a_place_is_a_file_a_row_and_a_field(place: Place, text: str) -> None:
    assert str(place) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("Nothing runs."), "Nothing runs."),
        (UserError("not found", place=Path("a.zip"), advice="give a zip"), "a.zip: not found; give a zip."),
        (
            UserError(place=Place("a.jsonl", 3, "object"), value=7, expected="a text"),
            "a.jsonl, row 3, field 'object': expected a text, found 7.",
        ),
        (
            UserError("is 7", place="n", value=7, expected="8 or more", advice="raise it."),
            "n: is 7; expected 8 or more; raise it.",
        ),
        (
            UserError("unknown key 'a.b'", place=Place("s.yaml", field="a.b", unit="key")),
            "s.yaml: unknown key 'a.b'.",
        ),
        (UserError(place="x", value="y" * 300, expected="z"), f"x: expected z, found '{'y' * 199}..."),
    ],
)
def test_a_message_is_place_problem_expectation_and_advice(error: UserError, text: str) -> None:
    assert str(error) == text


def test_errors_of_one_document_are_lines_of_one_message_and_keep_their_fields() -> None:
    first, second = UserError("is 1", place="a", value=1), UserError("is 2", place="b", value=2)
    both = joined([first, second])
    assert str(both) == "a: is 1.\nb: is 2."
    assert both.value == 1 and [other.value for other in both.others] == [2]


def test_an_error_within_something_names_it_first_and_keeps_its_fields() -> None:
    error = UserError(
        place=Place("sft.epochs", field="x", unit="key"), value=0, expected="1 or more", advice="raise it."
    )
    found = within("strategy dare", error)
    assert str(found) == "strategy dare: sft.epochs: x: expected 1 or more, found 0; raise it."
    assert (found.place.field, found.value, found.expected) == ("x", 0, "1 or more")  # type: ignore[union-attr]
    assert str(within("a", UserError("wrong"))) == "a: wrong."


def test_fields_survive_the_way_from_a_worker() -> None:
    error = UserError("is 7", place=Place("f", 1, "x"), value=7, expected="8", advice="y")
    back = pickle.loads(pickle.dumps(error))
    assert vars(back) == vars(error) and str(back) == str(error)
    damaged = pickle.loads(pickle.dumps(Damaged(Path("/s/facts/x"), "a.txt is missing")))
    assert (damaged.folder, damaged.what) == (Path("/s/facts/x"), "a.txt is missing")
    assert damaged.place == Place("/s/facts/x")


def test_a_password_is_masked_in_every_field_that_is_shown() -> None:
    text = str(UserError("cannot be opened", place="s3://key:secret@bucket/x", advice="see s3://a:b@c"))
    assert "secret" not in text and "a:b" not in text


GOLDEN: list[tuple[Callable[[], object], Place | None, str]] = [
    (
        lambda: load_runtime(None, ["runtime.engine.threads=0"]),
        Place("--set runtime.engine.threads", field="engine.threads", unit="key"),
        "--set runtime.engine.threads: engine.threads: Input should be greater than or equal to 1 (found 0)",
    ),
    (
        lambda: load_runtime(None, ["runtime.engine.threads=null"]),
        Place("--set runtime.engine.threads", field="engine.threads", unit="key"),
        "--set runtime.engine.threads: engine.threads: null is no longer read; write auto (found None)",
    ),
    (
        lambda: load_study(TINY, ["sft.epoch=3"]),
        Place("--set sft.epoch", field="sft.epoch", unit="key"),
        "--set sft.epoch: unknown key 'sft.epoch'; did you mean 'epochs'?",
    ),
    (
        lambda: load_study(TINY, ["sft.epochs=yes"]),
        Place("--set sft.epochs", field="sft.epochs", unit="key"),
        "--set sft.epochs: sft.epochs: expected a number, and true is a truth value, as YAML reads yes, on and true "
        "(found True)",
    ),
    (
        lambda: override({}, ["sft"]),
        Place("--set"),
        "--set: expected KEY=VALUE, as in training_sets.sizes=[25,100], found 'sft'.",
    ),
    (
        lambda: override({"name": "x"}, ["name.a=1"]),
        Place("--set name.a=1"),
        "--set name.a=1: 'name' holds a value and not further keys.",
    ),
    (
        lambda: parse_yaml("a: 1\na: 2\n", "s.yaml"),
        Place("s.yaml"),
        "s.yaml: is not valid YAML: line 1: key 'a' is given twice.",
    ),
    (
        lambda: parse_yaml("[" * 5000, "s.yaml"),
        Place("s.yaml"),
        "s.yaml: is not valid YAML: it is nested too deeply.",
    ),
    (
        lambda: parse_json('"\\ud800"', Place("f.jsonl", 2, unit="line"), "write it again."),
        Place("f.jsonl", 2, unit="line"),
        r"f.jsonl, line 2: is not valid JSON: '\ud800' is half of a character; write it again.",
    ),
    (
        lambda: load_study(Path("nowhere.yaml")),
        Place("nowhere.yaml"),
        "nowhere.yaml: cannot be read (No such file or directory); give a YAML file.",
    ),
]


@pytest.mark.parametrize(("call", "place", "text"), GOLDEN, ids=[text[:40] for _, _, text in GOLDEN])
def test_a_message_is_the_same_as_ever(call: Callable[[], object], place: Place, text: str) -> None:
    error = raised(call)
    assert error.place == place and str(error) == text


def test_a_document_with_several_errors_has_each_with_its_value() -> None:
    error = raised(lambda: load_study(TINY, ["sft.epochs=0", "mastery.samples=-1"]))
    found = {one.place.field: one.value for one in (error, *error.others) if one.place is not None}
    assert found == {"sft.epochs": 0, "mastery.samples": -1}
