"""What a killed evaluation had found is used again only where its bytes are those that were written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference import evaluator
from sftlab.inference.engine import Completion, Prompt
from sftlab.inference.evaluator import EvaluationItem, EvaluationProgress, EvaluationRequest, evaluate
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.pieces import commit_piece, is_sound
from sftlab.inference.pool import Task
from sftlab.inference.spec import EngineSpec
from sftlab.measurements.answers import ANSWERS, ClosedBookAnswers
from sftlab.measurements.divergence import FirstTokenDivergence
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.spec import AnswerSpec, DivergenceSpec

TOPICS = {"P19": Topic("P19", "in-domain", "Where was {subject} born?", ("{subject} was born in",))}
NAMES = ("Ann", "Bo", "Cy")


class Killed(BaseException):
    """Stands in for SIGKILL."""


class Letters:
    """One token a character."""

    bos_token_id = None

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}


class Scripted:
    """An engine that holds the weights of the model `held`."""

    max_model_len = 100

    def __init__(self, held: str) -> None:
        self.held, self.tokenizer = held, Letters()

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        del max_tokens
        return [Completion("Wales" if self.held == "base" else self.held, 1) for _ in prompts]

    def first_token_top(self, prompts: Sequence[object], k: int) -> tuple[Any, Any]:
        ids = np.arange(len(prompts) * k).reshape(-1, k)
        return ids, ids.astype(np.float32) + len(self.held)

    def first_token_at(self, prompts: Sequence[object], token_ids: Sequence[Sequence[int]]) -> list[Any]:
        del prompts
        return [np.array(row, np.float32) / 2 for row in token_ids]


class Engines:
    """Runs measurements on scripted engines; remembers what it was asked, and dies when it is asked for `dies_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.dies_at = ""
        monkeypatch.setattr(evaluator, "measure_all", self.measure_all)

    def ask(self, what: str) -> None:
        if what == self.dies_at:
            raise Killed
        self.asked.append(what)

    def measure_all(self, engines: object, tasks: Mapping[str, Task]) -> Iterator[tuple[str, list[pa.Table]]]:
        del engines
        for key, task in tasks.items():
            of_base = task.name == "the base model"
            self.ask(type(task.measurements[0]).__name__ if of_base else key)
            engine: Any = Scripted("base" if of_base else key)
            yield key, [each.measure(engine) for each in task.measurements]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    return Engines(monkeypatch)


def request_in(folder: Path) -> EvaluationRequest:
    """Two models, three facts, and their divergence on three tokens."""
    facts = facts_table(
        {"fact_id": name, "topic": "P19", "subject": name, "object": "Wales", "accepted": ["Wales"], "question": "?"}
        for name in NAMES
    )  # fmt: skip
    rows = [{"fact_id": name, "topic": "P19", "hits": [9], "bucket": 4} for name in NAMES]
    mastery = pa.Table.from_pylist(rows, schema=mastery_schema())
    base: Any = None
    answers = {ANSWERS: ClosedBookAnswers({"test": facts}, AnswerSpec())}
    items = [EvaluationItem(name, base, answers, folder / "evaluation" / name) for name in ("a", "b")]
    divergence = FirstTokenDivergence(DivergenceSpec(top=3), 16, facts, mastery, TOPICS, base)
    folders = folder / "sessions" / "0", folder / "damaged"
    return EvaluationRequest(items, "m", EngineSpec(), *folders, divergence)


def test_a_fact_whose_prompt_is_too_long_is_left_out_of_the_divergence(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "max_model_len", 31)  # "Ann was born in" has 15 tokens, and 16 may follow
    evaluate(request_in(tmp_path), [None])
    assert engines.asked == ["BaseCompletions", "a", "b", "BaseLogits"]
    for name in ("a", "b"):
        table = pq.read_table(tmp_path / "evaluation" / name / "divergence.parquet")
        assert table["fact_id"].to_pylist() == ["Ann", "Bo", "Cy"]
    monkeypatch.setattr(Scripted, "max_model_len", 30)
    evaluate(request_in(tmp_path / "narrower"), [None])
    for name in ("a", "b"):
        table = pq.read_table(tmp_path / "narrower" / "evaluation" / name / "divergence.parquet")
        assert table["fact_id"].to_pylist() == ["Bo", "Cy"]


@dataclass(frozen=True)
class Rows:
    """A measurement of so many rows."""

    count: int

    def measure(self, engine: Any, limits: BatchLimits = WHOLE) -> pa.Table:
        del limits
        return pa.table({"model": [engine.held] * self.count})


def test_each_measurement_has_a_file_and_a_model_is_finished_with_its_last_one(
    engines: Engines, tmp_path: Path
) -> None:
    source: Any = None
    measurements = {"one.parquet": Rows(1), "three.parquet": Rows(3)}
    items = [EvaluationItem(name, source, measurements, tmp_path / name) for name in ("a", "b", "c")]
    request = EvaluationRequest(items, "m", EngineSpec(), tmp_path / "session", tmp_path / "damaged")
    commit_piece(pa.table({"model": ["b"]}), tmp_path / "b" / "one.parquet")
    for name in measurements:
        commit_piece(pa.table({"model": ["found"]}), tmp_path / "c" / name)
    done: list[str] = []
    seen: list[EvaluationProgress] = []
    evaluate(request, [None], seen.append, lambda item: done.append(item.id))
    assert engines.asked == ["a", "b"] and done == ["c", "a", "b"]
    assert [p.items_done for p in seen] == [1, 2, 3]
    tables = {path: pq.read_table(tmp_path / path)["model"].to_pylist() for path in
              ("a/one.parquet", "a/three.parquet", "b/three.parquet", "c/three.parquet")}  # fmt: skip
    assert list(tables.values()) == [["a"], ["a"] * 3, ["b"] * 3, ["found"]]
    assert not (tmp_path / "session").exists()


def results(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "evaluation").rglob("*.parquet"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def undisturbed(engines: Engines, tmp_path: Path) -> dict[str, bytes]:
    evaluate(request_in(tmp_path / "undisturbed"), [None])
    assert engines.asked == ["BaseCompletions", "a", "b", "BaseLogits"]
    engines.asked.clear()
    found = results(tmp_path / "undisturbed")
    assert len(found) == 4
    return found


def damage(path: Path, how: str) -> bytes:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[-1]
    else:  # in the first column's values, where parquet itself has no look
        content[len(content) // 8] ^= 1
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize(
    ("piece", "again"),
    [
        ("sessions/0/divergence_facts.parquet", ["BaseCompletions", "BaseLogits"]),
        ("sessions/0/tuned/a.parquet", ["a", "BaseLogits"]),
        ("evaluation/b/answers.parquet", ["b", "BaseLogits"]),
        (None, ["BaseLogits"]),
    ],
)
def test_a_damaged_piece_of_a_killed_session_is_quarantined_and_made_again(
    engines: Engines,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    piece: str | None,
    again: list[str],
    how: str,
) -> None:
    engines.dies_at = "BaseLogits"
    with pytest.raises(Killed):
        evaluate(request_in(tmp_path), [None])
    assert engines.asked == ["BaseCompletions", "a", "b"]
    engines.dies_at, engines.asked = "", []
    broken = [damage(tmp_path / piece, how)] if piece is not None else []
    evaluate(request_in(tmp_path), [None])
    assert engines.asked == again
    assert results(tmp_path) == undisturbed
    quarantined = [path for path in (tmp_path / "damaged").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in quarantined] == broken
    assert [path.parts[-2:] for path in quarantined] == ([Path(piece).parts[-2:]] if piece else [])
    assert [str(tmp_path / piece) in caplog.text if piece else not caplog.text] == [True]


def test_a_finished_model_is_looked_at_before_it_is_committed(
    engines: Engines, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    evaluate(request_in(tmp_path), [None])
    engines.asked.clear()
    damage(tmp_path / "evaluation" / "a" / "divergence.parquet", "flipped")
    done: list[str] = []
    evaluate(request_in(tmp_path), [None], finished=lambda item: done.append(item.id))
    assert engines.asked == ["BaseLogits"] and sorted(done) == ["a", "b"]
    assert results(tmp_path) == undisturbed


@pytest.mark.parametrize("note", ["", "{", '{"bytes": 1}', '{"bytes": 1, "sha256": 2}'])
def test_a_piece_whose_note_is_damaged_is_made_again(tmp_path: Path, note: str) -> None:
    piece, damaged = tmp_path / "p.parquet", tmp_path / "damaged"
    commit_piece(pa.table({"a": [1]}), piece)
    assert is_sound(piece, damaged) and is_sound(piece, damaged)
    (tmp_path / "work" / "p.parquet.json").write_text(note)
    assert not is_sound(piece, damaged) and not piece.exists()
    commit_piece(pa.table({"a": [1]}), piece)
    assert is_sound(piece, damaged)


def test_a_piece_counts_from_its_rename_on_and_not_without_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, damaged = tmp_path / "p.parquet", tmp_path / "damaged"
    with monkeypatch.context() as killed, pytest.raises(Killed):
        replace = Path.replace

        def die(self: Path, target: Path) -> Path:
            if target == piece:
                raise Killed
            return replace(self, target)

        killed.setattr(Path, "replace", die)
        commit_piece(pa.table({"a": [1]}), piece)
    assert not is_sound(piece, damaged)
    commit_piece(pa.table({"a": [1]}), piece)
    (tmp_path / "work" / "p.parquet.json").unlink()  # as of a version of this program without notes
    assert not is_sound(piece, damaged) and piece.exists() and not damaged.exists()
