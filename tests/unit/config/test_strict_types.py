"""A study's numbers are numbers and its truth values truth values; YAML that people share settings by is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.cli.study import open_study
from sftlab.config.documents import parse_yaml
from sftlab.errors import UserError
from sftlab.studies.load import load_runtime, load_study
from tests.support.refusals import refused

TINY = Path(__file__).parents[3] / "jobs" / "configs" / "tiny.yaml"
NUMBERS = [
    "sft.learning_rate",
    "sft.epochs",
    "sft.l2_sp",
    "sft.mask.percent",
    "mastery.temperature",
    "mastery.samples",
    "answers.max_tokens",
    "divergence.top",
    "pocket.seed",
    "restore.seed",
    "runtime.engine.engines",
    "runtime.training.workers",
    "runtime.training.zero_stage",
    "runtime.hash_up_to_gib",
]
LISTS = ["training_sets.sizes", "training_sets.seeds", "restore.percents", "sft.betas"]


@pytest.mark.parametrize("value", ["yes", "on", "true", "True", "no", "'1'", "'1.0e-4'"])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_truth_value_or_a_text_is_no_number(field: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"{field.removeprefix('runtime.')}: (expected a number|Input should be)"
    ):
        open_study(TINY, None, tmp_path, [f"{field}={value}"])


@pytest.mark.parametrize("value", ["yes", "true", "'1'"])
@pytest.mark.parametrize("field", LISTS)
def test_nor_is_one_in_a_list(field: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{field}: expected a number"):
        open_study(TINY, None, tmp_path, [f"{field}=[{value}, {value}]"])


@pytest.mark.parametrize(
    "field", ["mastery.early_stop", "runtime.track", "runtime.training.gradient_checkpointing"]
)
def test_a_number_or_a_text_is_no_truth_value(field: str, tmp_path: Path) -> None:
    for value in ("1", "0", "'yes'", "'true'"):
        with pytest.raises(UserError, match=rf"{field.removeprefix('runtime.')}: expected true or false"):
            open_study(TINY, None, tmp_path, [f"{field}={value}"])
    open_study(TINY, None, tmp_path, [f"{field}=no"])


def test_whole_numbers_and_numbers_with_a_point_stand_for_each_other() -> None:
    spec = load_study(TINY, ["sft.epochs=2.0", "sft.max_grad_norm=1"])
    assert (spec.sft.epochs, spec.sft.max_grad_norm) == (2, 1.0)
    assert type(spec.sft.epochs) is int and type(spec.sft.max_grad_norm) is float


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e-3", -2e-3),
        (".5e3", 500.0),
        ("1.e4", 1e4),
        ("+1e+2", 100.0),
        ("1e-04", 1e-4),
    ],
)
def test_an_exponent_needs_neither_point_nor_sign(text: str, value: float) -> None:
    found = parse_yaml(text, "here")
    assert found == value and type(found) is float
    if value > 0:
        assert load_runtime(None, [f"runtime.gpu_wait_minutes={text}"]).gpu_wait_minutes == value


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "x1e5", "'1e5'"])
def test_what_only_looks_like_an_exponent_is_a_text(text: str) -> None:
    assert parse_yaml(text, "here") == text.strip("'")


@pytest.mark.parametrize("text", ["017", "00", "-010", "1:30", "12:30:45", "1:30.5"])
def test_a_number_with_two_readings_is_refused(text: str) -> None:
    with refused("another number for other readers of YAML"):
        parse_yaml(f"a: {text}", "here")
    assert parse_yaml(f"a: '{text}'", "here") == {"a": text}


def test_shared_settings_are_read(tmp_path: Path) -> None:
    """Byte order mark, comments, anchors, aliases, merge keys, a folded text and the ending .yml."""
    file = tmp_path / "runtime.yml"
    file.write_text(
        "\ufeff# shared\n"
        "engine: &shared {timeout_seconds: 7e1}  # of both\n"
        "training:\n  <<: *shared\n  workers: 2\n"
        "store: >-\n  a\n  b\n"
        "sweep: {<<: [{engines: 3}, {engines: 4, threads: 5}], threads: 6}\n",
        encoding="utf-8",
    )
    runtime = load_runtime(file)
    assert (runtime.engine.timeout_seconds, runtime.training.timeout_seconds) == (70.0, 70.0)
    assert (runtime.training.workers, runtime.store) == (2, "a b")
    assert (runtime.sweep.engines, runtime.sweep.threads) == (3, 6)


def test_a_key_given_twice_is_refused_beside_a_merge_too() -> None:
    assert parse_yaml("{<<: {a: 1}, a: 2}", "here") == {"a": 2}
    with pytest.raises(UserError, match="key 'a' is given twice"):
        parse_yaml("{<<: {b: 1}, a: 2, a: 3}", "here")
