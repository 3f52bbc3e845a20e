"""The statements on Harada et al. 2025, recomputed from the authors' table, which is not part of this repository.

SFTLAB_MASSIVE_SFT_CSV is the path to evaluation_result.csv of llm-jp/massive-sft at ca323da.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftlab.analysis import agreement, gains
from sftlab.analysis.components import explained, explained_by_columns
from sftlab.analysis.variance import variance_parts
from sftlab.studies.survey import factor_tables, faults, tables
from sftlab.studies.survey.about import about_massive_sft
from sftlab.studies.survey.published import massive_sft
from sftlab.studies.survey.score_table import BASE, read_scores
from sftlab.studies.survey.survey import Survey, open_survey
from sftlab.studies.survey.verdicts import judge

TABLE = os.environ.get("SFTLAB_MASSIVE_SFT_CSV")
needs_table = pytest.mark.skipif(
    TABLE is None, reason="SFTLAB_MASSIVE_SFT_CSV does not name the authors' table"
)


@pytest.fixture(scope="module")
def survey() -> Survey:
    return open_survey(read_scores(Path(str(TABLE))), about_massive_sft())


def values(id: str) -> Any:
    return massive_sft().statement(id).values


def equal(found: object, expected: object, digits: int = 3) -> None:
    """Nested values, numbers equal to the digits that the packaged ones have."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        for key, value in expected.items():
            equal(found[key], value, digits)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=0.51 * 10**-digits), (found, expected)
    else:
        assert found == expected


def by_set(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {row["data"]: row[key] for row in rows}


def test_the_package_has_all_statements_and_claims_in_a_form_that_can_be_tested() -> None:
    published = massive_sft()
    assert len(published.statements) == 29 and len({one.id for one in published.statements}) == 29
    assert len({claim.id for claim in published.claims}) == len(published.claims) == 22
    assert {claim.question for claim in published.claims} == {"RQ1", "RQ2", "RQ4"}
    assert all(one.why for one in published.statements if one.status != "computed")
    assert all(claim.margin > 0 for claim in published.claims if claim.predicts in ("none", "not positive"))


def test_what_is_known_about_the_table_covers_its_names() -> None:
    about = about_massive_sft()
    assert values("F2a")["models"] == [name for name in about.models if name != "Gemma2-9B"]
    assert values("F2a")["data_sets"] == list(about.data)
    assert values("F2a")["benchmarks"] == [name for name, one in about.benchmarks.items() if one.main]
    assert {name: one.length for name, one in about.data.items()} == values("F4b")["words_of_table_2"]


@needs_table
def test_counts(survey: Survey) -> None:
    runs, expected = survey.table.runs, values("counts")
    assert len(runs) == expected["csv_rows"]
    assert sum(run.data == BASE for run in runs) == expected["csv_pretrained"]
    assert sum(run.data != BASE for run in runs) == expected["csv_tuned"]
    grid = [run for run in runs if run.data in survey.grid.sets and run.model in survey.grid.models]
    constant = [run for run in grid if run.schedule == "constant"]
    cosine = [run for run in grid if run.schedule == "cosine"]
    lora = [run for run in cosine if run.method == "lora" and run.model != "Mistral-7B-v0.1"]
    assert sum(run.method == "full" for run in cosine) + len(lora) + len(constant) == 757
    missing = [
        row for row in faults.missing_runs(survey.table, survey.about) if row["schedule"] == "constant"
    ]
    assert {(row["data"], row["size"], row["epoch"]) for row in missing} == {("lima", 1000, 10)}
    assert len(missing) == 3


@needs_table
def test_copied_baselines(survey: Survey) -> None:
    first, second = faults.copied_baselines(survey.table)
    assert {first["first"], first["second"]} == {"Mistral-7B-v0.1", "Chinese-Mistral-7B-v0.1"}
    assert (first["equal"], first["compared"]) == (29, 29)
    assert {second["first"], second["second"]} == {"OLMo-7B-hf", "LLM-jp-3-7B"}
    copied = set(second["benchmarks"].split(", ")) & set(survey.grid.benchmarks)
    assert copied == set(values("baseline-copies")["llmjp_equals_olmo_zero_shot"])
    assert set(survey.grid.benchmarks) - copied == set(values("baseline-copies")["llmjp_differs_from_olmo"])


@needs_table
def test_scores_below_chance(survey: Survey) -> None:
    found = {row["benchmark"]: row for row in faults.below_chance(survey.table, survey.about)}
    for name, expected in values("below-chance").items():
        assert found[name]["chance"] == expected["chance"]
        equal(found[name]["share_below"], expected["share_of_all_scores_below"])


@needs_table
def test_the_total_of_mt_bench_is_the_mean_of_its_parts(survey: Survey) -> None:
    (found,) = faults.wrong_totals(survey.table, survey.about)
    equal(found["largest_gap"], values("mtbench-total")["max_abs_difference_from_mean_of_8_categories"], 2)


@needs_table
def test_figure_2a(survey: Survey) -> None:
    expected, raw = values("F2a"), survey.gains[gains.RAW].mean(axis=0)
    assert list(survey.grid.models) == expected["models"]
    assert list(survey.grid.sets) == expected["data_sets"]
    assert list(survey.grid.benchmarks) == expected["benchmarks"]
    np.testing.assert_allclose(raw, expected["mean_gain"], atol=6e-4)
    np.testing.assert_allclose(gains.min_max_scaled(raw), expected["scaled"], atol=6e-4)
    rows = tables.sets(survey)
    equal(by_set(rows, "scaled"), expected["mean_scaled_by_set"])
    equal(by_set(rows, "standardised"), expected["mean_standardised_gain_by_set"])
    equal(by_set(rows, "positive_cells"), expected["share_of_positive_cells_by_set"], 2)
    assert by_set(rows, "rank") == values("F2a-general")["rank_by_standardised_gain"]
    assert by_set(rows, "positive_benchmarks") == values("F2a-code")["positive_benchmarks"]


@needs_table
def test_gains_by_set_on_some_benchmarks(survey: Survey) -> None:
    raw = dict(zip(survey.grid.benchmarks, survey.gains[gains.RAW].mean(axis=0).T, strict=True))
    equal(dict(zip(survey.grid.sets, raw["math-0shot"], strict=True)), values("F2a-math")["math"], 2)
    equal(dict(zip(survey.grid.sets, raw["gsm8k-0shot"], strict=True)), values("F2a-math")["gsm8k"], 2)
    coding = (raw["humaneval-0shot"] + raw["mbpp-0shot"]) / 2
    equal(dict(zip(survey.grid.sets, coding, strict=True)), values("F2a-code")["coding_mean"], 2)
    flan = values("F2a-flan")
    at = survey.sets_at(list(flan["nq_gain"]))
    equal(dict(zip(flan["nq_gain"], raw["nq-0shot"][at], strict=True)), flan["nq_gain"], 2)
    negative = (survey.gains[gains.RAW].mean(axis=0)[at] < 0).sum(axis=1)
    assert dict(zip(flan["nq_gain"], negative.tolist(), strict=True)) == flan["benchmarks_with_negative_mean"]
    boolq = survey.gains[gains.RAW][:, at[0], survey.benchmarks_at(["BoolQ-0shot"])[0]]
    equal(
        dict(zip(survey.grid.models, boolq, strict=True)), flan["boolq_gain_after_flan_knowledge_by_model"], 1
    )
    standard = by_set(tables.sets(survey), "standardised")
    names = {"lima": "lima", "alpaca": "alpaca_cleaned", "ultrachat": "ultrachat"}
    equal({key: standard[name] for key, name in names.items()}, values("F2a-lima")["standardised"])


@needs_table
def test_figure_2c(survey: Survey) -> None:
    matrices = {name: agreement.model_correlations(survey.gains[name]) for name in gains.TREATMENTS}
    family = {name: agreement.label_contrast(one, survey.families) for name, one in matrices.items()}
    equal(family, values("F2c")["family_contrast"])
    language = {
        name: agreement.label_contrast(one, survey.languages, survey.families)
        for name, one in matrices.items()
    }
    equal(language, values("F2c")["language_contrast_across_families"])
    at = {name: number for number, name in enumerate(survey.grid.models)}
    pairs = {
        pair: matrices[gains.RAW][tuple(at[name] for name in pair.split(" / "))]
        for pair in values("F2c")["copied_baseline_pairs_raw"]
    }
    equal(pairs, values("F2c")["copied_baseline_pairs_raw"])


@needs_table
def test_figure_2d(survey: Survey) -> None:
    raw, expected = survey.gains[gains.RAW], values("F2d")
    np.testing.assert_allclose(100 * explained(raw), expected["models_as_variables"], atol=0.06)
    np.testing.assert_allclose(
        100 * explained(survey.gains[gains.STANDARDISED]),
        expected["models_as_variables_standardised"],
        atol=0.06,
    )
    rows = raw.reshape(-1, raw.shape[2])
    np.testing.assert_allclose(
        100 * explained_by_columns(rows), expected["benchmarks_as_variables_100x12"], atol=0.06
    )
    np.testing.assert_allclose(
        100 * explained_by_columns(rows / rows.std(axis=0)), expected["benchmarks_standardised"], atol=0.06
    )
    null = [row["null"] for row in tables.component_shares(survey) if row["treatment"] == gains.RAW]
    np.testing.assert_allclose(
        [100 * share for share in null[:5]], expected["null_sets_shuffled_within_benchmark"], atol=0.6
    )


@needs_table
def test_figure_3(survey: Survey) -> None:
    for row in tables.structure_tests(survey):
        expected = values("F3")[row["treatment"]]
        equal(row["t"], expected["t"], 2)
        assert row["p"] == pytest.approx(expected["p"], rel=0.06)
        equal(
            {key: row[key] for key in ("benchmarks", "sets")},
            {k: expected[k] for k in ("benchmarks", "sets")},
        )


@needs_table
def test_variance(survey: Survey) -> None:
    for name, expected in values("variance").items():
        equal(variance_parts(survey.gains[name]), expected)


@needs_table
def test_figure_4b(survey: Survey) -> None:
    rows, expected = {row["model"]: row for row in tables.lengths(survey)}, values("F4b")
    equal({name: rows[name]["r"] for name in survey.grid.models}, expected["per_model_r"], 2)
    mean = rows["mean of all models"]
    equal(mean["r"], expected["mean_gain_r"])
    equal(mean["r_log_length"], expected["log_words_r"])
    equal(mean["r_raw_gain"], expected["raw_gain_r"])


@needs_table
def test_lora(survey: Survey) -> None:
    expected = values("lora")
    found = {row["benchmark"]: row for row in factor_tables.methods(survey)}
    for name, one in expected["by_benchmark"].items():
        equal(found[name]["difference"], one["full_minus_lora"])
        equal(found[name]["p_over_models"], one["p_over_models"], 4)
        assert (found[name]["first_better"], found[name]["models"]) == (one["models_full_better"], 9)
    rows = factor_tables.method_gains(survey)
    assert [row["model"] for row in rows] == expected["models"]
    equal({row["model"]: row["r"] for row in rows}, expected["correlation_of_gains"])
    sizes = {"full": "size_first", "lora": "size_second"}
    mean = {method: float(np.mean([row[key] for row in rows])) for method, key in sizes.items()}
    equal(mean, expected["mean_size_of_gain"])


@needs_table
def test_sizes_and_epochs(survey: Survey) -> None:
    found = {
        f"{row['epoch']:g}": {key: row[key] for key in ("difference", "share_better")}
        for row in factor_tables.sizes(survey)
    }
    equal(found, values("size")["by_epoch"])
    steps: dict[str, dict[str, float]] = {}
    for row in factor_tables.epochs(survey):
        steps.setdefault(f"{row['condition']}, {row['sets']}", {})[f"{row['epoch']:g}"] = row["step_to_next"]
    equal(steps, values("epochs")["step_to_next"])
    best: dict[str, dict[str, float]] = {}
    for row in factor_tables.best_epochs(survey):
        best.setdefault(row["condition"], {})[row["model"]] = row["best_epoch"]
    assert best == values("epochs")["best_epoch_of_mixture"]


@needs_table
def test_mixtures(survey: Survey) -> None:
    found = {row["model"]: row for row in factor_tables.mixtures(survey)}
    for model, expected in values("all-vs-single").items():
        equal(found[model]["mixture"], expected["all"])
        equal(found[model]["best"], expected["best"])
        assert found[model]["best_single"] == expected["best_single"]
        assert (found[model]["rank"], found[model]["of"]) == (expected["rank_of_all_among_11"], 11)
    left: dict[str, dict[str, float]] = {}
    for row in factor_tables.leave_one_out(survey):
        left.setdefault(f"{row['model']}, {row['method']}", {})[row["data"]] = row["contribution"]
    equal(left, values("leave-one-out")["contribution"])


@needs_table
def test_forms_and_languages(survey: Survey) -> None:
    shots = {f"{row['zero_shot']} / {row['few_shot']}": row for row in factor_tables.shot_gains(survey)}
    for pair, expected in values("zero-vs-few-shot")["pairs"].items():
        equal(shots[pair]["gain_zero_shot"], expected["zero_shot"], 2)
        equal(shots[pair]["gain_few_shot"], expected["few_shot"], 2)
        equal(shots[pair]["r"], expected["r"])
    languages: dict[str, Any] = {}
    for row in tables.language_transfer(survey):
        pair = f"{row['second']} / {row['first']}"
        languages.setdefault(row["treatment"], {}).setdefault(row["models"], {})[pair] = row["r"]
    equal({name: languages[name] for name in values("A1")}, values("A1"))


@needs_table
def test_words_of_the_claims(survey: Survey) -> None:
    found = {outcome.claim.id: outcome.word for outcome in judge(survey, massive_sft().claims)}
    assert found == {
        "F2a-general": "agrees",
        "F2a-flan": "agrees",
        "F2a-flan-nq": "open",
        "F2a-math": "agrees",
        "F2a-openmath": "depends on the baseline",
        "F2a-code": "agrees",
        "F2a-code-range": "agrees",
        "F2a-lima": "agrees",
        "F2c-family": "agrees",
        "F2c-language": "open",
        "F2d": "agrees",
        "F3": "depends on the baseline",
        "variance": "agrees",
        "F4b": "open",
        "lora-maths": "open",
        "lora-open": "agrees",
        "lora-knowledge": "differs",
        "size": "open",
        "epochs-steps": "agrees",
        "epochs-distances": "open",
        "A1": "agrees",
        "A1-all": "open",
    }
