from pathlib import Path

import numpy as np
import pytest

from sftlab.errors import UserError
from sftlab.studies.survey.about import About, parse_about, read_about, shots
from sftlab.studies.survey.grid import main_grid
from sftlab.studies.survey.score_table import Run, ScoreTable, read_scores
from tests.support.refusals import refused

LONG = "model,data,method,size,epoch,benchmark,score\nm,base,,,,quiz,40\nm,good,full,1000,3,quiz,55.5\n"
WIDE = (
    ",model_name,data_name,quiz-0shot,lora,epoch,data_size,lr_strategy,sums-4shot\n"
    "0,m,pretrain,40,None,0,0.0,,7\n"
    "1,m,good,55.5,false,3,1000.0,cosine,\n"
    "2,m,good,50,true,3,1000.0,cosine,8\n"
)


def read(tmp_path: Path, text: str, baseline: str | None = None) -> ScoreTable:
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    return read_scores(path, baseline)


def test_one_row_is_one_score(tmp_path: Path) -> None:
    table = read(tmp_path, LONG)
    assert table.runs == (Run("m", "base"), Run("m", "good", "full", 1000, 3.0))
    assert table.benchmarks == ("quiz",)
    np.testing.assert_array_equal(table.scores, [[40], [55.5]])
    assert (table.form, table.source, table.rows) == ("long", "scores.csv", (2, 3))
    assert table.baselines() == {"m": 0}


def test_one_row_is_one_model_in_the_wide_form(tmp_path: Path) -> None:
    table = read(tmp_path, WIDE)
    assert table.runs[1:] == (
        Run("m", "good", "full", 1000, 3.0, "cosine"),
        Run("m", "good", "lora", 1000, 3.0, "cosine"),
    )
    assert table.benchmarks == ("quiz-0shot", "sums-4shot")
    np.testing.assert_array_equal(table.scores, [[40, 7], [55.5, np.nan], [50, 8]])
    assert table.form == "wide"


def test_factors_that_do_not_vary_may_be_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, "model,data,benchmark,score\nm,base,quiz,1\nm,x,quiz,2\n")
    assert table.runs[1] == Run("m", "x")


def test_another_word_for_baselines(tmp_path: Path) -> None:
    table = read(tmp_path, LONG.replace("base", "Untuned"), baseline="untuned")
    assert table.runs[0] == Run("m", "base")


def test_a_byte_order_mark_quotes_and_empty_lines_are_read(tmp_path: Path) -> None:
    table = read(tmp_path, "\ufeff" + LONG + '\n"m, large",base,,,,quiz,1\n"m, large",x,,,,quiz,NaN\n')
    assert table.models == ["m", "m, large"]
    assert np.isnan(table.scores[3, 0])
    assert table.rows == (2, 3, 5, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "scores.csv: is empty; expected a header with the columns model, data, benchmark, score"),
        ("model,data,method,size,epoch,benchmark,score\n", "scores.csv: holds no scores below its header"),
        (
            LONG.replace("benchmark,", "benchmrk,"),
            "row 1: unknown column 'benchmrk'; did you mean 'benchmark'?",
        ),
        (
            "model,data,score\nm,base,1\n",
            "row 1: column 'benchmark' is missing; expected model, data, benchmark, score",
        ),
        ("model,model,data,benchmark,score\n", "row 1: column 'model' is there twice"),
        (LONG.replace("55.5", "good"), "row 3, field 'score': expected a number such as 61.3.* found 'good'"),
        (LONG.replace("55.5", "inf"), "row 3, field 'score': expected a number.* found 'inf'"),
        (
            LONG.replace("1000", "1k"),
            "row 3, field 'size': expected a number that is not negative.* found '1k'",
        ),
        (
            LONG.replace("1000", "-5"),
            "row 3, field 'size': expected a number that is not negative.* found '-5'",
        ),
        (LONG.replace("1000", "0.5"), "row 3, field 'size': expected a whole number, found 0.5"),
        (LONG.replace("m,good", ",good"), "row 3, field 'model': is empty; expected a name"),
        (LONG.replace("quiz,55.5", ",55.5"), "row 3, field 'benchmark': is empty"),
        (
            LONG + "m,good,full,1000,3,quiz,56\n",
            "rows 3 and 4 both hold quiz of m, good, full, size 1,000, epoch 3",
        ),
        (LONG + "m,good,full,1000,3,quiz\n", "row 4: has 6 cells; expected 7 as in the header"),
        (LONG + '"m,good\n', "is not valid CSV"),
        (
            LONG + "n,good,full,1000,3,quiz,56\n",
            "row 4: model 'n' has no baseline, so that its gains are not defined",
        ),
        ("model,data,benchmark,score\nm,base,quiz,1\n", "holds baselines alone"),
        (WIDE.replace("true", "maybe"), "row 4, field 'lora': expected true or false, found 'maybe'"),
        (WIDE.replace("50,true", "x,true"), "row 4, field 'quiz-0shot': expected a number.* found 'x'"),
        (WIDE.replace("1,m,good", "1,,good"), "row 3, field 'model_name': is empty"),
        (
            WIDE.replace("true,3,1000.0", "true,3,many"),
            "row 4, field 'data_size': expected a number.* found 'many'",
        ),
        ("model_name,data_name\nm,pretrain\n", "row 1: has no column of scores besides model_name"),
    ],
)
def test_errors_name_the_file_the_row_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert all(part in str(caught.value) for part in message.split(".*"))
    assert caught.value.place is not None and caught.value.place.file == str(tmp_path / "scores.csv")


def test_a_wrong_cell_carries_its_row_column_and_value(tmp_path: Path) -> None:
    with refused(place="scores.csv, row 3, field 'score'", field="score", value="good", expected="a number"):
        read(tmp_path, LONG.replace("55.5", "good"))


def test_a_missing_file_and_another_encoding_are_named(tmp_path: Path) -> None:
    with refused(r"cannot be read \(No such file or directory\)", place="absent.csv"):
        read_scores(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes("model,data,benchmark,score\nm,basé,q,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv: is not UTF-8"):
        read_scores(tmp_path / "latin.csv")


def test_some_models_and_benchmarks_are_selected(tmp_path: Path) -> None:
    table = read(tmp_path, LONG + "n,base,,,,quiz,1\nn,x,,,,sums,2\n")
    assert table.only(["n"], ["sums"]).runs == (Run("n", "base"), Run("n", "x"))
    np.testing.assert_array_equal(table.only(["n"], ["sums"]).scores, [[np.nan], [2]])
    with refused("has no benchmark 'sum'", value="sum", advice="did you mean 'sums'"):
        table.only(None, ["sum"])


def test_few_shot_forms_are_known_by_their_names() -> None:
    assert [shots(name) for name in ("gsm8k-4shot", "mbpp_0shot", "nq 25-shots", "hotshot")] == [
        ("gsm8k", 4),
        ("mbpp", 0),
        ("nq", 25),
        ("hotshot", 0),
    ]


def test_facts_about_a_table_are_read_with_errors_that_name_the_field(tmp_path: Path) -> None:
    table, path = read(tmp_path, LONG), tmp_path / "about.yaml"
    path.write_text("benchmarks: {quiz: {chance: 25, questions: 100}}\n")
    assert read_about(path, table).benchmarks["quiz"].chance == 25
    path.write_text("benchmarks: {quizz: {chance: 25}}\n")
    with refused(r"benchmarks\.quizz: scores\.csv has no such name", advice="did you mean 'quiz'"):
        read_about(path, table)
    path.write_text("benchmarks: {quiz: {chances: 25}}\n")
    with pytest.raises(UserError, match=r"benchmarks.quiz.chances.*did you mean 'chance'"):
        read_about(path, table)
    with refused(expected="the keys models, data and benchmarks"):
        parse_about([1], "about.yaml")


def test_a_model_of_unknown_family_is_its_own_family() -> None:
    about = parse_about({"models": {"a": {"family": "x"}, "b": {"family": "x"}}}, "here")
    assert about.labels(["a", "b", "c"], "family") == ["x", "x", "c"]


def test_a_table_without_a_complete_grid_says_what_is_missing(tmp_path: Path) -> None:
    with refused(
        "only 1 model, 1 training set and 1 benchmark have all scores, and the table has no others",
        expected="two models and two training sets",
        advice="add runs",
    ):
        main_grid(read(tmp_path, LONG), About())


def test_a_table_of_mixtures_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds mixtures alone"):
        main_grid(read(tmp_path, LONG.replace("good", "all")), About())
