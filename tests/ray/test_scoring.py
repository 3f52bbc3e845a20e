"""Mastery scoring through Ray Data with real engines: kill it anywhere, and the table is the same to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.instant import InstantEngine, write_facts, write_model
from benchmarks.scale_scoring import request_of as scale_request

from sftlab.errors import UserError
from sftlab.facts.mastery import bucket_of
from sftlab.facts.table import facts_table
from sftlab.inference.engine import Completion, Engine, Prompt, Sampling
from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate_with_engines
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.measurements.fact_blocks import FactBlocks
from sftlab.measurements.mastery_again import MASTERY, MasteryAgain
from sftlab.measurements.scoring import ScoringProgress, ScoringRequest, score, scored
from sftlab.measurements.spec import MasterySpec
from tests.support.inference_toys import RUNTIME, TOPICS, FolderSource, invented_facts, start_ray
from tests.support.inference_toys import write_model as write_random_model

pytestmark = pytest.mark.slow

SPEC = MasterySpec(samples=4, block_facts=5)
FACTS = 38
EMPTY = 17  # a fact without a subject, in the midst of a block
RUN = """
import sys
from pathlib import Path
from tests.support.inference_toys import start_ray
from test_scoring import run
start_ray()
run(sys.argv[1], Path(sys.argv[2]))
"""


def facts() -> pa.Table:
    rows = invented_facts(FACTS).to_pylist()
    rows[EMPTY]["subject"] = ""
    return facts_table(rows)


def request(model: str, folder: Path, count: int = FACTS) -> ScoringRequest:
    """To score the first facts; two splits hold them, and a block reaches over the end of the first."""
    source = folder / "facts"
    source.mkdir(parents=True, exist_ok=True)
    rows = facts().slice(0, count)
    pq.write_table(rows.slice(0, 12), source / "train.parquet")
    pq.write_table(rows.slice(12), source / "dev.parquet")
    blocks = FactBlocks.of(source, SPEC.block_facts, ("train", "dev"))
    return ScoringRequest(blocks, TOPICS, model, SPEC, EngineSpec(), folder)


def run(model: str, folder: Path, runtime: EngineRuntime = RUNTIME, progress: object = None) -> pa.Table:
    asked = request(model, folder)
    score(asked, runtime, progress)
    return pa.concat_tables(scored(asked))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "blocks").glob("*.parquet"))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_random_model(tmp_path_factory.mktemp("scoring") / "model", seed=3)


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    import ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def uninterrupted(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    return run(model, folder), content(folder)


def kill_after_blocks(model: str, folder: Path, blocks: int) -> None:
    """Score in a process of its own, and kill it with all its children as soon as some blocks stand."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, model, str(folder)], env={**os.environ, "PYTHONPATH": path}
    )
    while process.poll() is None and len(content(folder)) < blocks:
        time.sleep(0.02)
    for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        child.send_signal(signal.SIGKILL)
    process.wait()


def test_one_row_a_fact_in_order_and_an_error_in_place_of_a_wrong_one(
    uninterrupted: tuple[pa.Table, dict[str, bytes]],
) -> None:
    table, blocks = uninterrupted
    rows = table.to_pylist()
    assert [row["fact_id"] for row in rows] == [f"fact-{i:03d}" for i in range(FACTS)]
    assert sorted(blocks) == [f"{i:05d}.parquet" for i in range(8)]
    assert rows[EMPTY]["error"] == "subject is empty" and rows[EMPTY]["bucket"] is None
    scored = [row for row in rows if row["error"] is None]
    assert len(scored) == FACTS - 1
    for row in scored:
        assert len(row["hits"]) == 3 and row["samples"] == 4
        assert row["r"] == sum(row["hits"]) / 12 and row["bucket"] == bucket_of(sum(row["hits"]), 12)
    assert len({row["bucket"] for row in scored}) > 1


def test_the_evaluator_scores_a_swapped_model_as_scoring_does(
    model: str, uninterrupted: tuple[pa.Table, dict[str, bytes]], tmp_path: Path
) -> None:
    base = write_random_model(tmp_path / "base", seed=4)
    again = {MASTERY: MasteryAgain(facts(), TOPICS, SPEC)}
    item = EvaluationItem("tuned", FolderSource(model), again, tmp_path / "item")
    folders = tmp_path / "session", tmp_path / "damaged"
    evaluate_with_engines(EvaluationRequest([item], base, EngineSpec(), *folders), RUNTIME)
    assert pq.read_table(tmp_path / "item" / MASTERY) == uninterrupted[0]


def test_killed_twice_and_resumed_with_two_engines_it_is_the_same_to_the_bit(
    model: str, uninterrupted: tuple[pa.Table, dict[str, bytes]], tmp_path: Path
) -> None:
    kill_after_blocks(model, tmp_path, blocks=2)
    before = content(tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "blocks").glob("*.parquet")}
    assert 2 <= len(before) < 8
    seen: list[ScoringProgress] = []

    def kill_an_engine(progress: ScoringProgress) -> None:
        """The first block of this run is in: now one of its engines dies."""
        seen.append(progress)
        if progress.blocks_done == len(before) + 1:
            engines = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in p.name()]
            engines[0].kill()

    table = run(model, tmp_path, RUNTIME.model_copy(update={"engines": 2}), kill_an_engine)
    assert (table, content(tmp_path)) == (uninterrupted[0], uninterrupted[1])
    assert {name: (tmp_path / "blocks" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert seen[-1].blocks_done == seen[-1].blocks == 8
    assert seen[-1].tokens == sum(table["tokens"].to_pylist())


def test_nothing_left_to_score_starts_no_engine(
    model: str, uninterrupted: tuple[pa.Table, dict[str, bytes]], tmp_path: Path
) -> None:
    (tmp_path / "blocks").mkdir()
    for name, data in uninterrupted[1].items():
        (tmp_path / "blocks" / name).write_bytes(data)
    assert run("no such model", tmp_path) == uninterrupted[0]
    none = request(model, tmp_path / "none", count=0)
    score(none, RUNTIME)
    assert list(scored(none)) == []


def broken(model: str, spec: EngineSpec, runtime: EngineRuntime) -> NoReturn:
    del spec, runtime
    raise UserError(f"{model}: cannot be served.")


def test_what_a_user_can_mend_comes_back_from_the_engine_as_it_was_said(model: str, tmp_path: Path) -> None:
    """Both from the start of an engine and from a block that cannot be written."""
    with pytest.raises(UserError, match=f"^{model}: cannot be served.$"):
        score(request(model, tmp_path / "start"), RUNTIME, engine=broken)
    asked = request(str(tmp_path / "model"), tmp_path / "write")
    (tmp_path / "write/blocks").write_text("a file where a folder belongs")
    write_model(Path(asked.model_dir))
    with pytest.raises(UserError, match="write/blocks: cannot be made a folder: a file is in the way"):
        score(asked, RUNTIME, engine=InstantEngine)


def counting(model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> Engine:
    """An instant engine that notes, in the model's folder, of how many prompts each call is."""
    engine = InstantEngine(model_dir, spec, runtime)

    def sample(prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        with (Path(model_dir) / "calls").open("a") as calls:
            calls.write(f"{len(prompts)}\n")
        return InstantEngine.sample(engine, prompts, sampling)

    engine.sample = sample  # type: ignore[method-assign]
    return engine


def test_the_work_of_scoring_is_linear_in_the_facts_and_a_resume_repeats_none(tmp_path: Path) -> None:
    """The short form of benchmarks/scale_scoring.py."""
    count, blocks = 300, 10
    write_model(tmp_path / "model")
    write_facts(tmp_path / f"facts-{count}", count)
    asked = scale_request(tmp_path, count, 2)
    seen: list[ScoringProgress] = []
    for _ in range(2):
        score(asked, RUNTIME, seen.append, counting)
    assert [progress.blocks_done for progress in seen] == [*range(1, blocks + 1)] * 2
    calls = [int(line) for line in (tmp_path / "model/calls").read_text().split()]
    assert len(calls) == blocks and sum(calls) == 21 * count and max(calls) <= 21 * asked.spec.block_facts
    rows = pa.concat_tables(scored(asked))
    assert rows["fact_id"].to_pylist() == [f"{i:016x}" for i in range(count)]
    assert len(set(rows["r"].to_pylist())) > 5 and rows["error"].null_count == count
