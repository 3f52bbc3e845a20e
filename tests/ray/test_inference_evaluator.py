"""Many models through one engine: equal to separate engines, resumable, and refusing a broken model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.analysis.divergence import first_token_kl
from sftlab.errors import UserError
from sftlab.inference.evaluator import (
    EvaluationItem,
    EvaluationProgress,
    EvaluationRequest,
    evaluate_with_engines,
)
from sftlab.inference.spec import EngineSpec
from sftlab.measurements.answers import ANSWERS, ClosedBookAnswers
from sftlab.measurements.divergence import FirstTokenDivergence
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.spec import AnswerSpec, DivergenceSpec
from tests.support.inference_toys import RUNTIME, TOPICS, FolderSource, invented_facts, start_ray, write_model

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow

NAMES = tuple("abcdefghijklmnopqrstuvwxyz")  # so many that random completions often hold one

DIVERGENCE = {"same_prompt": True, "answer_within": 40}


@dataclass(frozen=True)
class DamagedSource:
    """Fails midway through its tensors, as a truncated file does."""

    folder: str

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield next(FolderSource(self.folder).tensors())
        raise UserError("model.safetensors: is cut off; copy it again.")


@dataclass(frozen=True)
class LackingSource:
    """Leaves out one tensor, so that an engine keeps that of the model before."""

    folder: str

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in FolderSource(self.folder).tensors():
            if name != "model.layers.1.mlp.down_proj.weight":
                yield name, tensor


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    import ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / str(seed), tied=True, seed=seed) for seed in range(3)]


def mastery(facts: pa.Table) -> pa.Table:
    """Every third fact is of bucket 3, the others are mastered, best by the second template."""
    rows = [
        {"fact_id": fact, "topic": "P19", "hits": [8, 9, 8], "samples": 10, "bucket": 3 if i % 3 == 0 else 4}
        for i, fact in enumerate(facts["fact_id"].to_pylist())
    ]
    return pa.Table.from_pylist(rows, schema=mastery_schema())


def divergence(base: str, **spec: object) -> FirstTokenDivergence:
    facts, most = invented_facts(30, NAMES), AnswerSpec().max_tokens
    return FirstTokenDivergence(
        DivergenceSpec(**spec), most, facts, mastery(facts), TOPICS, FolderSource(base)
    )


def answers(**splits: pa.Table) -> dict[str, ClosedBookAnswers]:
    return {ANSWERS: ClosedBookAnswers(splits, AnswerSpec())}


def items(models: list[str], root: Path) -> list[EvaluationItem]:
    asked = answers(test=invented_facts(30, NAMES), train=invented_facts(7, NAMES))
    return [EvaluationItem(f"model-{i}", FolderSource(m), asked, root / str(i)) for i, m in enumerate(models)]


def run(
    made: list[EvaluationItem], model: str, session: Path, engines: int = 1, **options: object
) -> tuple[list[str], list[EvaluationProgress]]:
    done: list[str] = []
    seen: list[EvaluationProgress] = []
    runtime = RUNTIME.model_copy(update={"engines": engines})
    request = EvaluationRequest(
        made, model, EngineSpec(), session, session / "damaged", divergence(model, **options)
    )
    evaluate_with_engines(request, runtime, seen.append, lambda i: done.append(i.id))
    return done, seen


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def evaluated(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    done, seen = run(items(models, root / "items"), models[0], root / "session", **DIVERGENCE)
    assert done == ["model-0", "model-1", "model-2"]
    assert [p.items_done for p in seen] == [1, 2, 3]
    return root


def test_one_engine_answers_as_separate_engines_do(
    models: list[str], evaluated: Path, tmp_path: Path
) -> None:
    for i in (1, 2):
        (item,) = items([models[i]], tmp_path / str(i))
        session = tmp_path / f"session-{i}"
        request = EvaluationRequest([item], models[i], EngineSpec(), session, session / "damaged")
        evaluate_with_engines(request, RUNTIME)
        alone = (item.output_dir / "answers.parquet").read_bytes()
        assert alone == (evaluated / "items" / str(i) / "answers.parquet").read_bytes()
    tables = [pq.read_table(evaluated / "items" / str(i) / "answers.parquet") for i in range(3)]
    assert tables[0]["split"].to_pylist() == ["test"] * 30 + ["train"] * 7
    assert len({str(table["answer"].to_pylist()) for table in tables}) == 3


def test_the_base_model_does_not_diverge_from_itself_and_others_do(evaluated: Path) -> None:
    kls = []
    for i in range(3):
        table = pq.read_table(evaluated / "items" / str(i) / "divergence.parquet")
        assert 0 < table.num_rows <= 20
        assert all(len(row) == 10 for row in table["token_ids"].to_pylist())
        tuned, base = (table[name].to_pylist() for name in ("tuned_logits", "base_logits"))
        assert all(row == sorted(row, reverse=True) for row in tuned)
        kls.append(first_token_kl(tuned, base))
    assert kls[0].max() == 0.0
    assert min(kls[1].mean(), kls[2].mean()) > 0.1
    selection = pq.read_table(evaluated / "session" / "divergence_facts.parquet")
    assert selection.num_rows == 20 and set(selection["template"].to_pylist()) == {1}


def test_a_broken_model_is_named_and_finished_results_are_kept_for_the_next_run(
    models: list[str], evaluated: Path, tmp_path: Path
) -> None:
    made = items(models, tmp_path / "items")
    broken = [
        made[0],
        made[1],
        EvaluationItem("model-2", DamagedSource(models[2]), made[2].measurements, made[2].output_dir),
    ]
    with pytest.raises(UserError, match="is cut off; copy it again"):
        run(broken, models[0], tmp_path / "session", **DIVERGENCE)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("answers.parquet")}
    assert len(stamps) == 2
    done, seen = run(made, models[0], tmp_path / "session", engines=2, **DIVERGENCE)
    assert sorted(done) == ["model-0", "model-1", "model-2"]
    assert [p.items_done for p in seen] == [1, 2, 3]
    assert content(tmp_path) == content(evaluated)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    again, _ = run(made, "no such model", tmp_path / "session", **DIVERGENCE)
    assert again == ["model-0", "model-1", "model-2"]


def test_a_mastered_fact_whose_prompt_is_too_long_is_no_fact_of_the_divergence(
    models: list[str], tmp_path: Path
) -> None:
    facts = invented_facts(4, NAMES).to_pylist()
    facts[1]["subject"] = "Person " + "x" * 200  # RUNTIME has room for 128 tokens
    facts[2]["question"] = "Where was " + "y" * 200
    table = pa.Table.from_pylist(facts, schema=invented_facts(0).schema)
    rows = mastery(table).set_column(5, "bucket", pa.array([4] * 4, pa.int8()))
    spec = DivergenceSpec(answer_within=1000)
    most = AnswerSpec().max_tokens
    given = FirstTokenDivergence(spec, most, table, rows, TOPICS, FolderSource(models[0]))
    item = EvaluationItem("model", FolderSource(models[1]), answers(test=table), tmp_path / "item")
    folders = tmp_path / "session", tmp_path / "damaged"
    request = EvaluationRequest([item], models[0], EngineSpec(), *folders, given)
    evaluate_with_engines(request, RUNTIME)
    answered = pq.read_table(item.output_dir / "answers.parquet")
    refused = [row["fact_id"] for row in answered.to_pylist() if "too long" in (row["error"] or "")]
    assert refused == ["fact-002"]
    selection = pq.read_table(tmp_path / "session" / "divergence_facts.parquet")
    assert [text is None for text in selection["completion"].to_pylist()] == [False, True, True, False]
    compared = pq.read_table(item.output_dir / "divergence.parquet")["fact_id"].to_pylist()
    assert set(compared) <= {"fact-000", "fact-003"}


def test_a_model_that_an_engine_does_not_take_in_is_named_in_the_error(
    models: list[str], tmp_path: Path
) -> None:
    asked = answers(test=invented_facts(3, NAMES))
    made = [
        EvaluationItem("whole", FolderSource(models[1]), asked, tmp_path / "whole-1"),
        EvaluationItem("lacking", LackingSource(models[2]), asked, tmp_path / "lacking-2"),
    ]
    folders = tmp_path / "session", tmp_path / "damaged"
    request = EvaluationRequest(made, models[0], EngineSpec(), *folders)
    with pytest.raises(
        UserError, match=r"the weights of lacking-2, although.*down_proj\.weight.* finished models are kept"
    ):
        evaluate_with_engines(request, RUNTIME)
    assert (tmp_path / "whole-1" / "answers.parquet").is_file()
    assert not (tmp_path / "lacking-2" / "answers.parquet").exists()
