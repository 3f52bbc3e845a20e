"""One fact's way: what of it is in the store, how it is named, and what the page of fates counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.cli.explain import way_json, way_text
from sftlab.errors import ExitCode, UserError
from sftlab.facts.table import SPLITS, fact_id, read_facts
from sftlab.measurements.answers import answer_schema
from sftlab.measurements.mastery import mastery_schema
from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.explain import explain
from sftlab.studies.knowledge.results.answer_rows import AnswerKindRow, TopicBaselineRow, TopicRow
from sftlab.studies.knowledge.results.rows import FateRow
from sftlab.studies.knowledge.stages.answer_kinds import answer_kind_rows, read_names
from sftlab.studies.knowledge.stages.evaluation import read_answers
from sftlab.studies.knowledge.stages.facts import build_facts
from sftlab.studies.knowledge.stages.fates import fate_keys, fate_rows
from sftlab.studies.knowledge.stages.mastery import FILE, write_mastery
from sftlab.studies.knowledge.stages.topics import baseline_rows, read_topic_answers, topic_rows
from sftlab.studies.knowledge.stages.training_sets import build_training_sets
from tests.support.refusals import refused
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

ASKED = fact_id("A", "Atest0", "answer 0")
# Whether the two test facts are right, by percentage; the base model is at None.
RIGHT: dict[float | None, list[bool | None]] = {
    None: [False, True],
    0.0: [False, True],
    10.0: [True, None],
    40.0: [True, True],
}


@pytest.fixture
def build(tmp_path: Path) -> KnowledgeBuild:
    counts = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 1}
    grid = {"buckets": [4], "sizes": [3], "seeds": [0]}
    path = own_study(tmp_path, counts, training_sets=grid, restore={"percents": [0, 10, 40]})
    return build_of(path, tmp_path)


def scored(build: KnowledgeBuild) -> None:
    """Commit facts and mastery: the first test fact has bucket 1, and all others bucket 4."""
    build_facts(build)
    rows, splits = [], []
    for split in SPLITS:
        for place, fact in enumerate(read_facts(build.path(build.plan.facts), split).to_pylist()):
            hits = 1 if (split, place) == ("test", 0) else 4
            row = {"fact_id": fact["fact_id"], "topic": fact["topic"], "samples": 4, "tokens": 1}
            rows.append(row | {"hits": [hits], "r": hits / 4, "bucket": hits})
            splits.append(split)
    path = build.path(build.plan.mastery)
    path.mkdir(parents=True)
    write_mastery(iter([pa.Table.from_pylist(rows, schema=mastery_schema())]), 32, iter(splits), path / FILE)
    build.commit(build.plan.mastery)


def finish(build: KnowledgeBuild) -> None:
    """Commit facts, mastery, the training set, and the answers of `RIGHT`."""
    scored(build)
    build_training_sets(build)
    (cell,) = build.plan.cells
    answer(build, build.plan.base_evaluation, RIGHT[None])
    for at, step in cell.evaluations.items():
        answer(build, step, RIGHT[at])


def answer(
    build: KnowledgeBuild,
    step: Step,
    right: list[bool | None],
    dev: Sequence[bool] = (),
    dev_ood: Sequence[bool] = (),
) -> None:
    """Answers of one model to the test and dev facts, and logits of the second test fact."""
    facts = read_facts(build.path(build.plan.facts), "test")["fact_id"].to_pylist()
    rows: list[dict[str, Any]] = [
        {"fact_id": fact, "split": "test", "answer": "a", "correct": correct, "tokens": 1}
        | ({"error": "too long"} if correct is None else {})
        for fact, correct in zip(facts, right, strict=True)
    ]
    for split, verdicts in {"dev": dev, "dev_ood": dev_ood}.items():
        if verdicts:
            others = read_facts(build.path(build.plan.facts), split)["fact_id"].to_pylist()
            rows += [
                {"fact_id": fact, "split": split, "answer": "a", "correct": correct, "tokens": 1}
                for fact, correct in zip(others, verdicts, strict=True)
            ]
    folder = build.path(step)
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=answer_schema()), folder / "answers.parquet")
    floats = pa.list_(pa.float32())
    logits = np.zeros((1, 10), np.float32)
    tuned = logits + np.float32(np.log(2.0)) * (np.arange(10) == 0)
    columns = {
        "fact_id": pa.array([facts[1]]),
        "token_ids": pa.array([list(range(10))], pa.list_(pa.int32())),
        "tuned_logits": pa.array(tuned.tolist(), floats),
        "base_logits": pa.array(logits.tolist(), floats),
    }
    pq.write_table(pa.table(columns), folder / "divergence.parquet")
    build.commit(step)


def test_a_fact_is_followed_along_the_ladder(build: KnowledgeBuild) -> None:
    finish(build)
    found = explain(build, ASKED)
    assert (found.fact["subject"], list(found.splits)) == ("Atest0", ["test"])
    assert found.templates == [("Atest0 is", 1)] and found.mastery is not None
    assert (found.mastery["bucket"], found.mastery["r"]) == (1, 0.25)
    assert found.base is not None and found.base.correct is False and found.base.kl is None
    (way,) = found.cells
    assert {at: a.correct for at, a in way.answers.items()} == {0.0: False, 10.0: True, 40.0: True}
    assert (way.returns_at, way.trained) == (10.0, False)
    (trained,) = build.plan.cells
    drawn = pq.read_table(build.path(trained.training_set) / "train.parquet").to_pylist()
    assert sorted(way.nearest) == sorted(row["fact_id"] for row in drawn)
    same_answer = [row["fact_id"] for row in drawn if row["object"] == "answer 0"]
    assert way.nearest[: len(same_answer)] == same_answer
    data = json.loads(json.dumps(way_json(found)))
    assert data["cells"][0]["answers"]["10"]["correct"] is True and data["mastery"]["bucket"] == 1
    text = way_text(found)
    assert "R = 0.250, bucket 1: 1 of 4 completions" in text
    assert "bucket4-n3-s0  wrong  right  right  10 %" in text


def test_the_divergence_of_a_fact_is_its_row_of_the_logits(build: KnowledgeBuild) -> None:
    finish(build)
    other = fact_id("A", "Atest1", "answer 1")
    found = explain(build, "atest1")  # a subject, whatever its case
    assert found.fact["fact_id"] == other
    (way,) = found.cells
    # softmax of (log 2, 0 x 9) is (2, 1 x 9) / 11 against an even 1 / 10
    expected = 2 / 11 * np.log(20 / 11) + 9 / 11 * np.log(10 / 11)
    kls = [answered.kl for answered in way.answers.values()]
    assert kls == pytest.approx([expected] * 3, rel=1e-6)
    assert way.answers[10.0].error == "too long" and way.returns_at is None


def test_a_name_of_no_fact_or_of_several_is_refused_with_the_facts_that_are_near(
    build: KnowledgeBuild,
) -> None:
    with refused("holds no facts of this study yet"):
        explain(build, ASKED)
    finish(build)
    assert explain(build, ASKED[:8]).fact["fact_id"] == ASKED
    with pytest.raises(UserError, match=rf"no fact has this id or subject.*\n  {ASKED}  Atest0"):
        explain(build, "Atest00")
    other = "f" if ASKED[6] != "f" else "e"
    ids = rf"^the nearest ids are\n  {ASKED}  Atest0\n  [0-9a-f]+  A"
    for typed in (f"{ASKED[:6]}{other}{ASKED[7:]}", f"{ASKED[:9]}0000"):
        with refused("no fact has this id or subject", place=repr(typed), value=typed, advice=ids):
            explain(build, typed)
    with refused(advice=r"^the nearest subjects are\n  [0-9a-f]+  A"):
        explain(build, f"{ASKED[:9]}g")
    result = CliRunner().invoke(
        app, ["explain", str(Path(build.store.root).parent / "study.yaml"), "x", "--store", str(build.store)]
    )
    assert isinstance(result.exception, UserError) and ExitCode.USER_ERROR == 2


def test_fates_count_the_facts_of_a_topic_and_bucket(build: KnowledgeBuild) -> None:
    finish(build)
    (cell,) = build.plan.cells
    tuned, restored = (read_answers(build, cell.evaluations[at]) for at in (0.0, 10.0))
    found = fate_rows("c", 10.0, tuned, restored, fate_keys(build))
    # The first fact is recovered; the question that could not be asked after restoring counts as wrong.
    assert found == [
        FateRow("c", 10.0, "test", "A", 1, kept=0, undone=0, recovered=1, lost=0),
        FateRow("c", 10.0, "test", "A", 4, kept=0, undone=1, recovered=0, lost=0),
    ]
    other = {"test": restored["test"].slice(1)}
    with refused("did not answer the same questions of test", place="c, 10 %"):
        fate_rows("c", 10.0, tuned, other, fate_keys(build))


def test_kinds_of_answers_are_counted_against_the_answers_of_the_whole_topic(build: KnowledgeBuild) -> None:
    finish(build)
    names = read_names(build.read(build.plan.facts))
    facts = read_facts(build.path(build.plan.facts), "test")["fact_id"].to_pylist()
    texts = [("The Answer 1.", False), (" answer 1 ", False)]
    rows = [
        {"fact_id": fact, "answer": answer, "correct": correct}
        for fact, (answer, correct) in zip(facts, texts, strict=True)
    ]
    # "answer 1" is the answer of another fact than the first one; the second accepts it, though its verdict does not.
    found = answer_kind_rows("c", 10.0, {"test": pa.Table.from_pylist(rows)}, fate_keys(build), names)
    assert found == [
        AnswerKindRow("c", 10.0, "test", "A", 1, right=0, other_entity=1, no_answer=0, malformed=0),
        AnswerKindRow("c", 10.0, "test", "A", 4, right=0, other_entity=0, no_answer=0, malformed=1),
    ]
    kinds = [
        names.kind(facts[0], *given) for given in ((None, None), (" ?", False), ("a", False), ("b", True))
    ]
    assert kinds == ["no_answer", "no_answer", "malformed", "right"]


def test_topics_have_accuracies_and_baselines_from_the_facts_to_train_on(build: KnowledgeBuild) -> None:
    finish(build)
    answers = read_topic_answers(build.read(build.plan.facts))
    train = read_facts(build.path(build.plan.facts), "train")["object"].to_pylist()
    assert sorted(train) == [f"answer {number}" for number in range(8)]
    (row,) = baseline_rows(answers, fate_keys(build))
    # "answer 0" is the first of eight equally frequent answers, and that of one of the two test facts.
    assert row == TopicBaselineRow("test", "A", 2, "train", 8, "answer 0", 0.5, 1 / 8)
    (cell,) = build.plan.cells
    given = read_answers(build, cell.evaluations[10.0])
    # Of two facts there is no correlation; the question that could not be asked is wrong.
    assert topic_rows("c", 10.0, given, fate_keys(build), answers) == [
        TopicRow("c", 10.0, "test", "A", 2, 1, None)
    ]
