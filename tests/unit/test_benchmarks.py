"""Benchmarks compare like with like, and say so where a target is missed."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pytest
from benchmarks import instant, ray_overhead, scoring, slowest_tests, study

from sftlab.inference import vllm_engine
from sftlab.inference.engine import Completion, Prompt, Sampling
from sftlab.inference.limits import WHOLE
from sftlab.inference.spec import EngineRuntime
from sftlab.measurements.scoring import BLOCK, BlockScorer
from sftlab.measurements.spec import MasterySpec


def test_the_bare_loop_writes_the_files_of_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", instant.InstantEngine)
    instant.write_facts(tmp_path / "facts", 400)
    instant.write_model(tmp_path / "model")
    options = argparse.Namespace(
        facts=tmp_path / "facts", model=str(tmp_path / "model"), split="train", limit=40
    )
    assert len(ray_overhead.bare(options, tmp_path / "bare")) == 2
    request = ray_overhead.request_of(options, tmp_path / "pipeline")
    engine: Any = instant.InstantEngine
    runtime = EngineRuntime(timeout_seconds=None)
    BlockScorer(request, runtime, engine, WHOLE)(pa.table({BLOCK: [0, 1]}))
    bare = ray_overhead.content(tmp_path / "bare")
    assert len(bare) == 2 and bare == ray_overhead.content(tmp_path / "pipeline")


END = 0


class Spelling:
    """One token a character; token 0 ends a text and is not shown, as vLLM leaves special tokens out."""

    tokenizer: Any
    max_model_len = 100

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.texts = texts
        self.asked: list[dict[str, Any]] = []
        self.tokenizer = SimpleNamespace(eos_token_id=END, decode=self.decode)

    @staticmethod
    def decode(ids: Sequence[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids))

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        assert len(prompts) == len(params) == len(self.texts)
        self.asked += params
        return [SimpleNamespace(outputs=[self.sample(text) for text in row]) for row in self.texts]

    @staticmethod
    def sample(text: str) -> Any:
        ids = [END if letter == "|" else ord(letter) for letter in text]
        return SimpleNamespace(text=text.replace("|", ""), token_ids=ids)


def test_the_peer_runs_on_and_is_judged_by_its_text_up_to_the_end_of_sequence() -> None:
    engine = Spelling([["Riga.|Oslo", "Oslo|Riga", "no end Riga"], ["|Riga Riga", "Rome|Rome", "x|y|Oslo"]])
    peer = scoring.RunsOn(engine)
    prompts = [Prompt((1,), ("Riga",), 7), Prompt((2,), ("Oslo", "Riga"), 9)]
    drawn = peer.sample(prompts, Sampling(3, 0.7, 1.0, 32))
    assert drawn == [
        [Completion("Riga.", 10), Completion("Oslo", 9), Completion("no end Riga", 11)],
        [Completion("", 10), Completion("Rome", 9), Completion("x", 8)],
    ]
    assert peer.named_after_end == 3
    shared = {"n": 3, "temperature": 0.7, "top_p": 1.0, "max_tokens": 32, "ignore_eos": True}
    assert engine.asked == [{"seed": 7, **shared}, {"seed": 9, **shared}]


def side(tokens: int, hits: list[int]) -> scoring.Side:
    """Of one fact with two templates and ten samples each."""
    return scoring.Side([{"tokens": tokens, "hits": hits, "samples": 10, "r": sum(hits) / 20}], 2.0)


@pytest.mark.parametrize(
    ("tokens", "limit", "hits", "wrong"),
    [
        (100, 640, [3, 4], []),
        (400, 640, [3, 4], ["the ratio of tokens is over 0.6"]),
        (100, 640, [4, 3], ["verdicts differ from those to the limit"]),
        (100, 600, [3, 4], ["the peer did not run to its limit"]),
    ],
)
def test_scoring_says_what_is_missed(
    tokens: int, limit: int, hits: list[int], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sides = {
        scoring.STOP: side(tokens, [3, 4]),
        scoring.END: side(500, [3, 4]),
        scoring.LIMIT: side(limit, hits),
    }
    assert scoring.missed(sides, MasterySpec(), 5) == wrong
    told = capsys.readouterr().out
    assert f"tokens, stop strings / all to 32 tokens: {tokens / limit:.3f}" in told
    assert "only after the end of the text, which nobody judges: 5" in told


def process(pid: int, *words: str) -> psutil.Process:
    def cmdline() -> list[str]:
        if not words:
            raise psutil.NoSuchProcess(pid)
        return list(words)

    found: Any = SimpleNamespace(pid=pid, cmdline=cmdline)
    return found


def test_engines_are_counted_by_their_processes() -> None:
    seen = [
        process(1, "ray::MapWorker(MapBatches(BlockScorer)).submit"),
        process(2, "ray::EngineWorker.measure"),
        process(3, "ray::EngineWorker"),
        process(4, "ray::RayTrainWorker"),
        process(5, "python", "-m", "EngineWorker"),
        process(6),
        process(7, "ray::IDLE"),
    ]
    assert study.engines_among(seen) == {1, 2, 3}


def mastery(**buckets: list[int]) -> pa.Table:
    rows = [{"split": split, "bucket": b} for split, found in buckets.items() for b in found]
    return pa.Table.from_pylist(rows, pa.schema([("split", pa.string()), ("bucket", pa.int8())]))


def test_the_pocket_study_says_what_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    even = [bucket for bucket in range(5) for _ in range(4)]
    lines = ["pre-training: done in 1,250.5 s", "noise", "scoring mastery: done in 80.0 s"]
    good = study.Run(700.0, [*lines[1:], "pre-training: done in 200.0 s"], {11, 12})
    assert study.missed(good, mastery(train=even, test=even, test_ood=even), 720.0) == []
    bad = study.Run(1800.0, lines, {11, 12, 13})
    uneven = mastery(train=even, test=[0, 0, 1, 2, 3] * 4 + [4], test_ood=even)
    assert study.missed(bad, uneven, 720.0) == [
        "3 engine starts",
        "the time of pre-training",
        "the time of the whole",
        "the smallest bucket of test",
    ]
    assert "smallest bucket of test      0.048   0.60 x" in capsys.readouterr().out


def test_the_slowest_tests_come_first() -> None:
    shown = slowest_tests.table(Counter({"a::b": 0.25, "a::c": 12.0, "a::d": 3.0}), shown=2)
    assert shown.splitlines()[2:] == ["| 12.0 | `a::c` |", "| 3.0 | `a::d` |"]
