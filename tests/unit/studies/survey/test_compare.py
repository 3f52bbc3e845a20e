import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sftlab.analysis.gains import BASELINE_FREE, STANDARDISED
from sftlab.errors import UserError
from sftlab.studies.survey import factor_tables, faults, grid, tables
from sftlab.studies.survey.about import About, parse_about
from sftlab.studies.survey.claims import Claim
from sftlab.studies.survey.compare import Comparison, Options, compare_file, csv_text, summary, write
from sftlab.studies.survey.report.maps import mean_gain_map
from sftlab.studies.survey.report.page import finding, render
from sftlab.studies.survey.score_table import ScoreTable, read_scores
from sftlab.studies.survey.survey import Survey, open_survey
from sftlab.studies.survey.verdicts import Outcome, judge
from tests.support import survey_tables as planted

ABOUT = {
    "models": {
        **{f"m{n}": {"family": "one", "language": "en"} for n in range(3)},
        **{f"m{n}": {"language": "ja" if n % 2 else "en"} for n in range(3, 9)},
    },
    "data": {name: {"length": length} for name, length in zip(planted.SETS, (90, 50, 55, 10), strict=True)},
    "benchmarks": {
        "quiz": {"chance": 45, "questions": 1000},
        "words": {"transfer": "en"},
        "facts": {"transfer": "ja"},
    },
}


def table_of(tmp_path: Path, rows: object, name: str = "scores.csv") -> ScoreTable:
    return read_scores(planted.write(tmp_path / name, rows))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    rows = planted.rows()
    table = table_of(tmp_path_factory.mktemp("whole"), [*rows, *planted.other_runs(rows)])
    return open_survey(table, parse_about(ABOUT, "about"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compared")
    rows = planted.rows()
    file = planted.write(folder / "scores.csv", [*rows, *planted.other_runs(rows)])
    (folder / "about.yaml").write_text(json.dumps(ABOUT))
    return compare_file(file, Options(about=folder / "about.yaml"))


def test_the_grid_is_of_the_condition_with_most_scores_at_the_latest_epoch(whole: Survey) -> None:
    assert str(whole.grid.condition) == "lora, 1,000 examples, epoch 3"
    assert whole.grid.models == tuple(planted.MODELS)
    assert whole.grid.sets == tuple(planted.SETS)
    assert whole.grid.scores.shape == (10, 4, 6)
    assert whole.grid.left_out == ()


def test_mixtures_are_no_single_sets(whole: Survey) -> None:
    assert whole.about.single_sets(whole.table) == planted.SETS


def test_planted_effects_of_sets_are_found(compared: Comparison) -> None:
    rows = {row["data"]: row for row in compared.tables["sets"]}
    assert [rows[name]["rank"] for name in planted.SETS][::3] == [1, 4]
    assert rows["good"]["standardised_p"] < 0.05 and rows["good"]["standardised_low"] > 0
    assert rows["bad"]["standardised_p"] < 0.05 and rows["bad"]["standardised_high"] < 0
    assert (rows["good"]["positive_benchmarks"], rows["bad"]["positive_benchmarks"]) == (6, 0)


def test_mean_gains_are_those_of_the_table_by_hand(tmp_path: Path) -> None:
    rows = [
        (model, data, "full", 10, 1, benchmark, score)
        for model, shift in (("a", 0.0), ("b", 10.0))
        for data, scores in (("x", (5.0, 2.0)), ("y", (1.0, 6.0)))
        for benchmark, score in zip(("quiz", "sums"), (scores[0] + shift, scores[1]), strict=True)
    ]
    rows += [("a", "base", "", 0, 0, "quiz", 1.0), ("a", "base", "", 0, 0, "sums", 0.0)]
    rows += [("b", "base", "", 0, 0, "quiz", 9.0), ("b", "base", "", 0, 0, "sums", 4.0)]
    survey = open_survey(table_of(tmp_path, rows), About())
    found = {(row["data"], row["benchmark"]): row for row in tables.mean_gains(survey)}
    # Gains: x (4, 2) and y (0, 6) of model a; x (6, -2) and y (2, 2) of model b.
    assert [found[key]["gain"] for key in (("x", "quiz"), ("x", "sums"), ("y", "quiz"), ("y", "sums"))] == [
        5,
        0,
        1,
        4,
    ]
    assert found["x", "quiz"]["scaled"] == 1 and found["x", "sums"]["scaled"] == -1
    assert found["x", "sums"]["models_better"] == 0.5
    np.testing.assert_allclose(survey.spread, [np.sqrt(5), np.sqrt(8)])


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (0.0, "Nothing can be tested: the gains of each training set are equal on all 2 models"),
        (3.0, "No training set raises or lowers the scores beyond chance; a mean gain of"),
    ],
)
def test_gains_without_variance_are_said_to_allow_no_test(second: float, said: str, tmp_path: Path) -> None:
    rows = []
    for model, level, more in (("a", 10.0, 0.0), ("b", 10.3, second)):
        rows.append((model, "base", "", 0, 0, "quiz", level))
        rows += [
            (model, data, "full", 10, 1, "quiz", level + gain)
            for data, gain in (("x", 1.1 + more), ("y", -0.7))
        ]
    found = compare_file(planted.write(tmp_path / "scores.csv", rows), Options())
    assert finding(found).startswith(said)
    assert [row["standardised_detectable"] is None for row in found.tables["sets"]] == [not second, True]
    render(found)


def test_a_planted_copied_baseline_is_found(tmp_path: Path) -> None:
    rows = planted.rows()
    base = {row[5]: row[6] for row in rows if row[:2] == ("m2", "base")}
    copied = [
        (*row[:6], base[row[5]]) if row[:2] == ("m6", "base") and row[5] != "chat" else row for row in rows
    ]
    (found,) = faults.copied_baselines(table_of(tmp_path, copied))
    assert (found["first"], found["second"], found["equal"], found["compared"]) == ("m2", "m6", 5, 6)
    assert (found["first_row"], found["second_row"]) == (62, 182)
    assert "chat" not in found["benchmarks"]
    assert faults.copied_baselines(table_of(tmp_path, rows, "clean.csv")) == []


def test_planted_scores_below_chance_are_found(tmp_path: Path) -> None:
    rows = planted.rows()
    low = [(*row[:6], 20.0) if row[1] == "bad" and row[5] == "quiz" else row for row in rows]
    about = parse_about({"benchmarks": {"quiz": {"chance": 25, "questions": 1000}}}, "about")
    (found,) = faults.below_chance(table_of(tmp_path, low), about)
    assert (found["benchmark"], found["chance"], found["scores"]) == ("quiz", 25, 50)
    assert found["share_below"] == pytest.approx(10 / 50)
    assert found["share_clearly_below"] == pytest.approx(10 / 50)
    assert found["share_below_base"] == 0


def test_missing_scores_and_runs_are_found_and_left_out_of_the_grid(tmp_path: Path) -> None:
    rows = planted.changed(planted.rows(), "m1", "odd", "code", None)
    rows = [row for row in rows if row[:2] != ("m5", "good")]
    table = table_of(tmp_path, rows)
    (gap,) = faults.missing_scores(table)
    assert (gap["model"], gap["method"], gap["runs"], gap["missing"]) == ("m1", "full", 1, "code")
    (run,) = faults.missing_runs(table, About())
    assert (run["model"], run["data"], run["size"], run["epoch"]) == ("m5", "good", 1000, 3)
    found = grid.main_grid(table, About())
    assert found.models == tuple(name for name in planted.MODELS if name not in ("m1", "m5"))
    assert found.left_out == (
        "model m5 (6 of 24 scores missing)",
        "model m1 (1 of 24 scores missing)",
    )


def test_a_benchmark_that_few_runs_have_is_no_gap(tmp_path: Path) -> None:
    extra = ("m0", "good", "full", 1000, 3, "rare", 5.0)
    table = table_of(tmp_path, [*planted.rows(), extra])
    assert faults.rare_benchmarks(table) == ["rare"]
    assert faults.missing_scores(table) == []
    assert "rare" not in grid.main_grid(table, About()).benchmarks


def test_totals_are_checked_against_their_parts(tmp_path: Path) -> None:
    rows = planted.rows()
    totals = [(*row[:5], "total", row[6] + 0.3) for row in rows if row[5] == "quiz"]
    about = parse_about({"benchmarks": {"total": {"mean_of": ["quiz"]}}}, "about")
    table = table_of(tmp_path, [*rows, *totals])
    (found,) = faults.wrong_totals(table, about)
    assert found["largest_gap"] == pytest.approx(0.3)
    assert "quiz" not in about.main_benchmarks(table)


def test_methods_sizes_and_epochs_show_what_was_planted(whole: Survey) -> None:
    methods = factor_tables.methods(whole)
    assert {(row["first"], row["second"], row["models"]) for row in methods} == {("lora", "full", 10)}
    np.testing.assert_allclose([row["difference"] for row in methods], -2, atol=0.15)
    assert all(row["first_better"] == 0 for row in methods)
    (size,) = factor_tables.sizes(whole)
    assert (size["first"], size["second"], size["models"], size["sets"]) == (
        "4,000 examples",
        "1,000 examples",
        10,
        4,
    )
    assert abs(size["difference"]) < 0.02 and 0.4 < size["share_better"] < 0.6
    steps = [
        row["step_to_next"]
        for row in factor_tables.epochs(whole)
        if row["condition"] == "full, 1,000 examples"
    ]
    # Half of the way, then four tenths of it, then one tenth.
    assert steps[0] == pytest.approx(4 * steps[1], rel=0.15) and steps[2] is None


def test_mixtures_are_ranked_and_taken_apart(tmp_path: Path) -> None:
    rows = planted.rows()
    full = [row for row in [*rows, *planted.other_runs(rows)] if row[2] != "lora"]
    survey = open_survey(table_of(tmp_path, full), About())
    assert survey.grid.condition.size == 4000
    found = factor_tables.mixtures(survey)
    assert len(found) == 10
    assert {row["of"] for row in found} == {5}
    assert all(1 < row["rank"] < 5 for row in found)
    left = [row for row in factor_tables.leave_one_out(survey) if row["model"] == "m3"]
    by_set = {row["data"]: row["contribution"] for row in left}
    # Without `good` the mixture loses one point, without `bad` it gains one.
    assert by_set["good"] == pytest.approx(float((1 / survey.spread).mean()), abs=0.03)
    assert by_set["bad"] == pytest.approx(-float((1 / survey.spread).mean()), abs=0.03)


def test_zero_and_few_shot_forms_are_paired(tmp_path: Path) -> None:
    names = {"quiz": "quiz-0shot", "sums": "quiz-5shot"}
    rows = [(*row[:5], names.get(row[5], row[5]), row[6]) for row in planted.rows()]
    survey = open_survey(table_of(tmp_path, rows), About())
    assert "quiz-5shot" not in survey.grid.benchmarks
    (found,) = factor_tables.shot_gains(survey)
    assert (found["zero_shot"], found["few_shot"], found["shots"]) == ("quiz-0shot", "quiz-5shot", 5)
    assert (found["models"], found["sets"]) == (10, 4)
    assert found["gain_few_shot"] == pytest.approx(5, abs=1)
    assert found["gain_zero_shot"] == pytest.approx(0, abs=1)


def claim(id: str, predicts: str, **test: object) -> Claim:
    return Claim.model_validate(
        {
            "id": id,
            "question": "q",
            "where": "here",
            "says": id,
            "predicts": predicts,
            "margin": 0,
            "test": test,
        }
    )


CLAIMS = [
    claim("good helps", "positive", kind="sets", data=["good"]),
    claim("bad helps", "positive", kind="sets", data=["bad"]),
    claim("odd lifts sums", "positive", kind="sets", data=["odd"], benchmarks=["sums"]),
    claim("good beats bad", "positive", kind="sets", data=["good"], versus=["bad"]),
    claim("lora is better", "positive", kind="method", first="lora", second="full"),
    claim("synergy", "positive", kind="synergy"),
    claim("components", "positive", kind="components", components=2),
    claim("settles", "positive", kind="epochs", measure="steps"),
    claim("unknown", "positive", kind="sets", data=["nothing"]),
    claim("unknown benchmark", "positive", kind="sets", data=["good"], benchmarks=["nothing"]),
]


@pytest.fixture(scope="module")
def judged(whole: Survey) -> dict[str, Outcome]:
    return {outcome.claim.id: outcome for outcome in judge(whole, CLAIMS)}


def test_planted_claims_get_their_words(judged: dict[str, Outcome]) -> None:
    assert {name: outcome.word for name, outcome in judged.items()} == {
        "good helps": "agrees",
        "bad helps": "differs",
        "odd lifts sums": "agrees",
        "good beats bad": "agrees",
        "lora is better": "differs",
        "synergy": "open",  # one set of four makes it, and an interval over sets knows that
        "components": "agrees",
        "settles": "open",  # four sets
        "unknown": "",
        "unknown benchmark": "",
    }
    assert judged["unknown"].reason == "the grid has no training set nothing"
    assert judged["unknown benchmark"].reason == "the grid has no benchmark nothing"


def test_p_values_are_corrected_over_the_claims_of_a_question_by_treatment(
    judged: dict[str, Outcome],
) -> None:
    smallest = 2 / 2**10
    found = [
        o for o in judged.values() if STANDARDISED in o.effects and o.effects[STANDARDISED].p == smallest
    ]
    assert len(found) == 5
    tested = sum(STANDARDISED in outcome.effects for outcome in judged.values())
    more = [o.effects[STANDARDISED].p for o in judged.values() if STANDARDISED in o.effects]
    below = sum(p < smallest for p in more)
    assert all(o.corrected[STANDARDISED] == pytest.approx((tested - below) * smallest) for o in found)


def test_a_difference_of_tuned_models_has_no_treatment_without_the_baseline(
    judged: dict[str, Outcome],
) -> None:
    assert BASELINE_FREE not in judged["good beats bad"].effects
    assert BASELINE_FREE in judged["good helps"].effects


def test_claims_about_noise_are_rarely_decided(tmp_path: Path) -> None:
    """Tables without any effect: at most one claim in twenty may be decided, as p is corrected."""
    claims = [claim(f"{name} helps", "positive", kind="sets", data=[name]) for name in planted.SETS]
    decided = 0
    for seed in range(15):
        random = np.random.default_rng(seed)
        rows = [(*row[:6], float(random.normal(50, 5))) for row in planted.rows()]
        survey = open_survey(table_of(tmp_path, rows, f"{seed}.csv"), About(), seed)
        decided += sum(outcome.word in ("agrees", "differs") for outcome in judge(survey, claims))
    assert decided <= 4


def test_a_baseline_that_makes_a_claim_is_named(tmp_path: Path) -> None:
    """All baselines are 30 points too low: every set seems to help, and without the baseline `neutral` does not."""
    rows = [(*row[:6], row[6] - 30 if row[1] == "base" else row[6]) for row in planted.rows()]
    survey = open_survey(table_of(tmp_path, rows), About())
    (found,) = judge(survey, [claim("bad helps", "positive", kind="sets", data=["bad"])])
    assert found.words[STANDARDISED] == "agrees"
    assert found.words[BASELINE_FREE] == "differs"
    assert found.word == "depends on the baseline"


def test_the_comparison_is_the_same_each_time_and_differs_by_seed(tmp_path: Path) -> None:
    file = planted.write(tmp_path / "scores.csv", planted.rows())
    first, second, other = (compare_file(file, Options(seed=seed)) for seed in (0, 0, 1))
    assert summary(first) == summary(second)
    assert csv_text(first.tables["claims"]) == csv_text(second.tables["claims"])
    intervals = [c.tables["sets"][0]["standardised_low"] for c in (first, other)]
    assert intervals[0] != intervals[1]


def test_the_summary_is_json_and_names_the_faults(compared: Comparison) -> None:
    found = json.loads(json.dumps(summary(compared), allow_nan=False))
    assert found["models"] == planted.MODELS
    assert found["condition"] == "lora, 1,000 examples, epoch 3"
    assert found["faults"]["copied_baselines"] == []
    assert [row["benchmark"] for row in found["faults"]["below_chance"]] == ["quiz"]
    size = next(one for one in found["claims"] if one["id"] == "size")
    assert size["effects"]["standardised"]["low"] < 0.1
    assert next(one for one in found["claims"] if one["id"] == "F2a-lima")["word"] == "not tested"


def test_no_text_of_a_csv_is_a_formula() -> None:
    assert csv_text([{"model": "=1+1", "gain": -0.5, "r": None}]) == "model,gain,r\n'=1+1,-0.5,\n"


@pytest.fixture(scope="module")
def page(compared: Comparison) -> str:
    return render(compared)


def test_files_hold_the_page_and_each_table_twice(compared: Comparison, page: str, tmp_path: Path) -> None:
    write(compared, page, tmp_path / "out")
    assert (tmp_path / "out" / "compare.html").read_text(encoding="utf-8") == page
    assert "<h1>scores.csv</h1>" in page
    gains = pq.read_table(tmp_path / "out" / "tables" / "gains.parquet")
    assert (gains.num_rows, gains.column_names[:3]) == (10 * 4 * 6, ["model", "data", "benchmark"])
    assert gains.column("raw")[0].as_py() == compared.tables["gains"][0]["raw"]
    text = (tmp_path / "out" / "tables" / "gains.csv").read_text(encoding="utf-8")
    assert text == csv_text(compared.tables["gains"])
    assert not (tmp_path / "out" / "tables" / "copied_baselines.csv").exists()


def test_the_page_refers_to_nothing_outside_itself_and_names_each_id_once(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?!#|data:text/csv)[^"]*"|url\((?!#)|@import|<script', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"claims", "faults", "gains", "agreement", "structure", "epochs", "mixtures", "transfer"} <= set(
        ids
    )
    linked = set(re.findall(r'href="#([^"]+)"', page))
    assert linked <= set(ids)


def test_a_figure_has_the_same_bytes_each_time(compared: Comparison) -> None:
    first, second = (mean_gain_map(compared.survey) for _ in range(2))
    assert first == second


def test_names_from_the_table_are_escaped(page: str) -> None:
    assert "m9<b>" not in page
    assert "m9&lt;b&gt;&amp;" in page


def test_a_small_table_gets_a_page_with_what_it_has(tmp_path: Path) -> None:
    rows = [
        row
        for row in planted.rows(models=["m0", "m1"])
        if row[1] in ("base", "good", "bad") and row[5] in ("quiz", "sums", "code")
    ]
    found = compare_file(planted.write(tmp_path / "s.csv", rows), Options())
    assert 'id="methods"' not in render(found)
    structure = next(outcome for outcome in found.outcomes if outcome.claim.id == "F3")
    assert structure.reason == "agreement of structures needs three models"


def test_options_select_and_refuse_names(tmp_path: Path) -> None:
    file = planted.write(tmp_path / "s.csv", planted.rows())
    found = compare_file(file, Options(models=("m0", "m1", "m2"), benchmarks=("quiz", "sums")))
    assert found.survey.grid.scores.shape == (3, 4, 2)
    with pytest.raises(UserError, match=r"has no model 'm9'; did you mean 'm0'|has no model 'm9'"):
        compare_file(file, Options(models=("m9",)))
