"""What a killed evaluation had found is used again only where its bytes are those that were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference import evaluator
from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate
from sftlab.inference.pieces import commit_piece, is_sound
from sftlab.inference.spec import EngineSpec
from sftlab.measurements.divergence import DivergenceInput
from sftlab.measurements.divergence_prompts import Candidate
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.spec import AnswerSpec, DivergenceSpec

TOPICS = {"P19": Topic("P19", "in-domain", "Where was {subject} born?", ("{subject} was born in",))}
NAMES = ("Ann", "Bo", "Cy")


class Killed(BaseException):
    """Stands in for SIGKILL."""


class Engines:
    """Answers by heart; remembers what it was asked, and dies when it is asked for `dies_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.dies_at = ""
        monkeypatch.setattr(evaluator, "_spread", self.spread)
        monkeypatch.setattr(evaluator, "insist", self.insist)

    def ask(self, what: str) -> None:
        if what == self.dies_at:
            raise Killed
        self.asked.append(what)

    def spread(
        self, workers: object, items: Sequence[EvaluationItem], chosen: Sequence[Candidate], top: int
    ) -> Iterator[tuple[EvaluationItem, tuple[Any, Any, Any]]]:
        del workers
        for item in items:
            self.ask(item.id)
            answers = pa.table({"fact_id": NAMES, "answer": [f"{item.id} {name}" for name in NAMES]})
            ids = np.arange(len(chosen) * top).reshape(-1, top)
            yield item, (answers, ids, ids.astype(np.float32) + len(item.id))

    def insist(self, worker: object, method: str, source: object, *given: Sequence[Any]) -> list[Any]:
        del worker, source
        self.ask(method)
        return ["Wales" for _ in given[0]] if method == "completions" else [np.array(r) / 2 for r in given[1]]


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
    items = [EvaluationItem(name, base, {"test": facts}, folder / "evaluation" / name) for name in ("a", "b")]
    divergence = DivergenceInput(DivergenceSpec(top=3), facts, mastery, TOPICS, base)
    folders = folder / "sessions" / "0", folder / "damaged"
    return EvaluationRequest(items, "m", AnswerSpec(), EngineSpec(), *folders, divergence)


def test_a_fact_whose_prompt_was_too_long_to_ask_is_left_out_of_the_divergence(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def insist(worker: object, method: str, source: object, *given: Sequence[Any]) -> list[Any]:
        found = engines.insist(worker, method, source, *given)
        return [None, *found[1:]] if method == "completions" else found

    monkeypatch.setattr(evaluator, "insist", insist)
    evaluate(request_in(tmp_path), [None])
    for name in ("a", "b"):
        table = pq.read_table(tmp_path / "evaluation" / name / "divergence.parquet")
        assert table["fact_id"].to_pylist() == ["Bo", "Cy"]


def results(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "evaluation").rglob("*.parquet"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def undisturbed(engines: Engines, tmp_path: Path) -> dict[str, bytes]:
    evaluate(request_in(tmp_path / "undisturbed"), [None])
    assert engines.asked == ["completions", "a", "b", "base_logits"]
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
        ("sessions/0/divergence_facts.parquet", ["completions", "base_logits"]),
        ("sessions/0/tuned/a.parquet", ["a", "base_logits"]),
        ("evaluation/b/answers.parquet", ["b", "base_logits"]),
        (None, ["base_logits"]),
    ],
)
def test_a_damaged_piece_of_a_killed_session_is_set_aside_and_made_again(
    engines: Engines,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    piece: str | None,
    again: list[str],
    how: str,
) -> None:
    engines.dies_at = "base_logits"
    with pytest.raises(Killed):
        evaluate(request_in(tmp_path), [None])
    assert engines.asked == ["completions", "a", "b"]
    engines.dies_at, engines.asked = "", []
    broken = [damage(tmp_path / piece, how)] if piece is not None else []
    evaluate(request_in(tmp_path), [None])
    assert engines.asked == again
    assert results(tmp_path) == undisturbed
    aside = [path for path in (tmp_path / "damaged").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in aside] == broken
    assert [path.parts[-2:] for path in aside] == ([Path(piece).parts[-2:]] if piece else [])
    assert [str(tmp_path / piece) in caplog.text if piece else not caplog.text] == [True]


def test_a_finished_model_is_looked_at_before_it_is_committed(
    engines: Engines, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    evaluate(request_in(tmp_path), [None])
    engines.asked.clear()
    damage(tmp_path / "evaluation" / "a" / "divergence.parquet", "flipped")
    done: list[str] = []
    evaluate(request_in(tmp_path), [None], finished=lambda item: done.append(item.id))
    assert engines.asked == ["base_logits"] and sorted(done) == ["a", "b"]
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
