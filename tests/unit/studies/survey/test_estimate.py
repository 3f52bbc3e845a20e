"""What a survey amounts to, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftlab.studies.load import load_survey
from sftlab.studies.survey.estimate import Totals, totals, totals_text
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import SurveySources
from sftlab.studies.survey.spec import SurveySpec
from tests.support.rates import BILLION, RATES

CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"


def small(**changes: Any) -> SurveyPlan:
    document = {
        "name": "small",
        "bases": {"folders": {"m": {"path": "nowhere", "family": "m", "parameters": BILLION}}},
        "data": {"files": {"one": {"source": "one.jsonl"}, "two": {"source": "two.jsonl"}}},
        "benchmarks": {"files": {"b": {"source": "b.jsonl", "questions": 100, "max_tokens": 50}}},
        "sft": {"epochs": 3, "batch_size": 32},
        "runs": [{"sizes": [10], "methods": ["full", "lora"], "keep_epochs": [1]}],
    }
    spec = SurveySpec.model_validate({**document, **changes})
    lost = {name: f"missing:{name}" for name in (*spec.bases.names, *spec.data.names, *spec.benchmarks.names)}
    return SurveyPlan(spec, SurveySources(lost, lost, lost))


def of(plan: SurveyPlan, **missing: bool) -> Totals:
    return totals(plan, RATES, lambda step: missing.get(step.stage.replace("-", "_"), True))


def test_amounts_of_a_small_survey_are_those_by_hand() -> None:
    found = of(small())
    # Two sets x two methods; each keeps epochs 1 and 3, and the base is scored too.
    assert (found.runs, found.models, found.scored) == (4, 8, 9)
    assert (found.questions, found.prompt_tokens, found.generated_tokens) == (900, 180_000, 45_000)
    assert found.trained_tokens == 4 * 10 * 280 * 3
    assert found.disk_bytes == 8 * 2 * BILLION and found.delta_bytes == round(0.31 * 16 * BILLION)
    seconds = {kind: hours * 3600 for kind, hours in found.gpu_hours.items()}
    # 8,400 tokens of each run at 6 and at 4 operations a weight.
    assert seconds["training"] == pytest.approx(2 * 8.4 * 6 + 2 * 8.4 * 4)
    # Of each model 20,000 tokens read, and 5,000 written at half the rate.
    assert seconds["answers"] == pytest.approx(9 * (40 + 20))
    # Two sets of 2,800 tokens, read as responses and as whole texts.
    assert seconds["perplexity"] == pytest.approx(2 * 2 * 2.8 * 2)
    # One engine, the base once and every tuned model written and read: 2 s each.
    assert seconds["weights"] == pytest.approx(10 + 2 + 8 * 4)
    assert found.gpu_hours_left == pytest.approx(found.gpu_hours)


def test_steps_that_are_built_are_not_left() -> None:
    left = of(small(), survey_tuned=False).gpu_hours_left
    assert left["training"] == 0 and left["answers"] > 0
    assert left["weights"] * 3600 == pytest.approx(10 + 2 + 8 * 2)


def test_what_is_not_known_is_named_and_counts_nothing() -> None:
    bases = {"folders": {"m": {"path": "nowhere", "family": "m"}}}
    asked = {"files": {"b": {"source": "b.jsonl"}}}
    found = of(small(bases=bases, benchmarks=asked))
    assert sum(found.gpu_hours.values()) == 0 and found.disk_bytes == 0 and found.questions == 0
    text = totals_text(found, RATES)
    assert "GPU hours and disk of m" in text and "questions of b" in text


def test_prompts_of_examples_programs_and_tasks_are_counted_by_hand() -> None:
    asked = {
        "pocket": ["sums"],
        "questions": 7,
        "files": {"b": {"source": "b.jsonl", "questions": 100, "max_tokens": 50, "shots": 3}},
        "code": {"files": {"c": {"source": "c.jsonl", "questions": 10, "max_tokens": 500}}},
        "harness": {"tasks": ["t", "u"], "questions": 20, "shots": 5},
    }
    found = of(small(benchmarks=asked))
    # Of each of nine models: 7 pocket questions of 16 tokens, 100 of 200 and again after three examples of 200, 10
    # programs of 200, 20 questions of each task after five examples.
    read = 7 * 16 + 100 * 200 + 100 * 800 + 10 * 200 + 2 * 20 * 1200
    assert (found.questions, found.prompt_tokens) == (9 * 257, 9 * read)
    assert found.generated_tokens == 9 * (7 * 24 + 2 * 100 * 50 + 10 * 500)
    written = found.generated_tokens / 9
    assert found.gpu_hours["answers"] * 3600 == pytest.approx(9 * 2 * (read + 2 * written) / 1000)


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        (5, ("answer lengths of t and u", "`questions` is of each subtask")),
        (None, ("answer lengths of t and u", "`questions` is of each subtask", "give `shots`")),
    ],
)
def test_what_tasks_of_lm_eval_alone_know_is_named(shots: int | None, said: tuple[str, ...]) -> None:
    asked = {"harness": {"tasks": ["t", "u"], "questions": 20, "shots": shots}}
    found = of(small(benchmarks=asked)).unknown
    assert len(found) == len(said) and all(text in line for text, line in zip(said, found, strict=True))
    assert not of(small()).unknown


def test_weights_of_a_base_without_a_number_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(4_000))
    found = of(small(bases={"folders": {"m": {"path": str(tmp_path), "family": "m"}}}))
    assert found.disk_bytes == 8 * 4_000 and not found.unknown


def test_pocket_survey_needs_no_gpu() -> None:
    plan = SurveyPlan(load_survey(CONFIGS / "tiny.yaml"), SurveySources())
    found = of(plan)
    assert sum(found.gpu_hours.values()) == 0 and found.questions == 14 * 80
    assert "GPU" not in totals_text(found, RATES)


def test_measurements_on_request_are_counted_by_hand() -> None:
    plain, found = (
        of(small(measure=measure)).gpu_hours
        for measure in (
            {},
            {
                "likelihood_map": {"questions": 5, "texts": ["question"]},
                "geometry": {"prompts": 3},
                "layer_maps": {"data": ["one"], "questions": 20, "cumulative": False},
            },
        )
    )
    assert plain["measures"] == 0.0
    assert {name: hours for name, hours in found.items() if name != "measures"} == {
        name: hours for name, hours in plain.items() if name != "measures"
    }
    # A question of 200 tokens takes 0.4 s to read, an answer of 50 tokens 0.2 s to write, a swap of 2 GB 2 s.
    maps = 9 * 5 * 0.4  # of the base and of two epochs of four runs
    states = 5 * 2 * 3 * 0.4  # of the base and four models, prompts of two sets
    swaps = 2 * 2 * 33 * (20 * (0.4 + 0.2) + 2)  # of full and LoRA, 32 layers and what is outside
    assert found["measures"] == pytest.approx((maps + states + swaps) / 3600)
