"""What a study amounts to, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.studies.knowledge.check import check
from sftlab.studies.knowledge.estimate import Totals, totals, totals_text
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.load import load_study
from tests.support.rates import BILLION, RATES

COUNTS = {"train": 100, "test": 10, "test_ood": 20, "dev": 5, "dev_ood": 5}
STUDY = """
name: small
facts: {source: facts.jsonl}
model: {path: nowhere, parameters: 1000000000}
mastery: {samples: 2, max_tokens: 10}
answers: {max_tokens: 4}
training_sets: {buckets: [0, 4], sizes: [50], seeds: [0]}
restore: {percents: [0, 10]}
"""


def of(folder: Path, *overrides: str, keep: Any = "full", missing: bool = True) -> Totals:
    (folder / "study.yaml").write_text(STUDY)
    spec = load_study(folder / "study.yaml", overrides)
    plan = Plan(spec, Sources({"source": "missing:facts"}, "missing:nowhere", COUNTS, 2 * BILLION, 3.0))
    return totals(plan, Runtime(rates=RATES, keep=keep), lambda step: missing and step.stage == "tuned")


def test_amounts_of_a_small_study_are_those_by_hand(tmp_path: Path) -> None:
    found = of(tmp_path)
    assert (found.models, found.evaluated) == (2, 5)
    # 140 facts of three templates, twice each; then 40 questions of five models and 50 more of those that are tuned.
    asked = 5 * 40 + 4 * 50
    assert found.completions == 140 * 3 * 2 + asked
    assert found.prompt_tokens == 140 * 3 * 12 + asked * 24
    assert found.generated_tokens == 140 * 3 * 2 * 10 + asked * 4
    assert found.trained_tokens == 2 * 50 * 32
    assert found.disk_bytes == 2 * 2 * BILLION and found.delta_bytes == round(0.31 * 4 * BILLION)
    seconds = {kind: hours * 3600 for kind, hours in found.gpu_hours.items()}
    assert seconds["training"] == pytest.approx(6 * 3.2)
    assert seconds["scoring"] == pytest.approx(2 * (140 * 3 * 12 + 2 * 140 * 3 * 2 * 10) / 1000)
    assert seconds["answers"] == pytest.approx(2 * (asked * 24 + 2 * asked * 4) / 1000)
    # Two tuned models and the recommended one are written, base and tuned ones read, and of each restored one both; two
    # stages start engines.
    assert seconds["weights"] == pytest.approx(3 * 2 + 3 * 2 + 2 * 2 * 2 + 20)
    left = {kind: hours * 3600 for kind, hours in found.gpu_hours_left.items()}
    assert left == pytest.approx({"training": 6 * 3.2, "scoring": 0, "answers": 0, "weights": 4})
    assert sum(of(tmp_path, missing=False).gpu_hours_left.values()) == 0


def test_adapters_take_two_thirds_and_scoring_after_tuning_counts(tmp_path: Path) -> None:
    full = of(tmp_path).gpu_hours
    lora = of(tmp_path, "sft.lora={rank: 2}").gpu_hours
    assert lora["training"] == pytest.approx(full["training"] * 2 / 3) and lora["answers"] == full["answers"]
    after = of(tmp_path, "mastery_after=[0]").gpu_hours
    # Of two models 30 test facts, where the base model has scored 140; one more start and 2 GB each.
    assert after["scoring"] == pytest.approx(full["scoring"] * (1 + 60 / 140))
    assert (after["weights"] - full["weights"]) * 3600 == pytest.approx(10 + 2 * 2)


def test_what_is_not_known_is_named_and_counts_nothing(tmp_path: Path) -> None:
    found = of(tmp_path, "gradients={percent: 10}")
    assert found.unknown == ("gradients of facts.",)
    assert "not counted" in totals_text(found, RATES)
    spec = load_study(tmp_path / "study.yaml", ["model.parameters=null"])
    empty = Sources({"source": "missing:facts"}, "missing:nowhere", dict.fromkeys(COUNTS, 0), 0, 0.0)
    found = totals(Plan(spec, empty), Runtime(rates=RATES), lambda _: True)
    assert sum(found.gpu_hours.values()) == 0
    assert [text.partition(":")[0] for text in found.unknown] == [
        "GPU hours and disk",
        "scoring facts and answering them",
    ]


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("full", "4.0 GB of tuned models kept as folders; about 1.2 GB with runtime.keep=delta"),
        ("delta", "4.0 GB of tuned models as folders; kept as deltas, about 1.2 GB"),
        ("recipe", "4.0 GB of tuned models until the study is finished"),
    ],
)
def test_the_disk_is_said_as_models_are_kept(keep: str, said: str, tmp_path: Path) -> None:
    assert said in totals_text(of(tmp_path, keep=keep), RATES)


@pytest.mark.parametrize("keep", ["delta", "recipe"])
def test_models_are_packed_or_deleted_in_a_folder_alone(keep: Any, tmp_path: Path) -> None:
    of(tmp_path)
    spec = load_study(tmp_path / "study.yaml", [])
    with pytest.raises(UserError, match="in a folder alone"):
        check(spec, Runtime(store="s3://b/p", keep=keep))
