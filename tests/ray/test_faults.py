"""Engines that hang, die or run out of memory, and stores that refuse files, under the real pipelines; no model."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.errors import UserError
from sftlab.inference import actors
from sftlab.inference.actors import StartWatch
from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate
from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.inference.pool import PooledEngine
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.worker import EngineBase, EngineWorker
from sftlab.measurements.answers import ANSWERS, answer_schema
from sftlab.measurements.fact_blocks import FactBlocks
from sftlab.measurements.scoring import ScoringRequest, score, scored
from sftlab.measurements.spec import MasterySpec
from tests.support.faulty_engines import Dying, Factory, Hanging, Small, Steady, StoppedFactory
from tests.support.inference_toys import RUNTIME, TOPICS, FolderSource, invented_facts, start_ray

pytestmark = pytest.mark.slow

FACTS, BLOCK = 12, 2
# A busy machine must not pass for an engine that hangs, but where that is what is tested.
CALM = RUNTIME.model_copy(update={"timeout_seconds": 120.0, "max_restarts": 2})
QUICK = CALM.model_copy(update={"timeout_seconds": 10.0})


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    import ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def request_(tmp_path: Path) -> ScoringRequest:
    for folder in ("facts", "model", "notes", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model" / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    )
    pq.write_table(invented_facts(FACTS), tmp_path / "facts" / "train.parquet")
    blocks = FactBlocks.of(tmp_path / "facts", BLOCK, ("train",))
    spec = MasterySpec(samples=2, block_facts=BLOCK)
    return ScoringRequest(blocks, TOPICS, str(tmp_path / "model"), spec, EngineSpec(), tmp_path / "out")


def run(
    request: ScoringRequest, kind: type[Steady], runtime: EngineRuntime = CALM
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows, and what the engines noted."""
    notes = request.output_dir.parent / "notes"
    score(request, runtime, engine=Factory(kind, notes))
    rows = [row for table in scored(request) for row in table.to_pylist()]
    return rows, {path.name: path.stat().st_size for path in notes.iterdir()}


def test_an_engine_that_hangs_is_ended_at_its_deadline_and_its_block_repeated(
    request_: ScoringRequest,
) -> None:
    rows, noted = run(request_, Hanging, QUICK)
    assert len(rows) == FACTS and all(row["r"] == 1.0 for row in rows)
    assert noted["start"] == 2 and noted["batch"] == FACTS // BLOCK + 1


def test_an_engine_that_dies_again_and_again_ends_the_run_with_a_message(request_: ScoringRequest) -> None:
    with pytest.raises(UserError, match=r"more often than engine\.max_restarts allows .*run again to go on"):
        run(request_, Dying)
    assert (request_.output_dir.parent / "notes" / "start").stat().st_size == 1 + CALM.max_restarts


def test_out_of_memory_cuts_the_batches_and_ends_in_a_row_that_says_why(request_: ScoringRequest) -> None:
    rows, noted = run(request_, Small)
    odd = [row for row in rows if row["error"] is not None]
    assert [row["fact_id"] for row in odd] == ["fact-004"]
    assert (
        odd[0]["error"].startswith("the engine ran out of memory: CUDA out of memory") and odd[0]["r"] is None
    )
    assert all(row["r"] == 1.0 for row in rows if row["error"] is None)
    assert noted["start"] == 3  # two facts at a time, one at a time, and without the one that does not fit


class SmallEngine:
    """Takes any weights, and has memory for two answers at a time."""

    def __init__(self, *_: object) -> None:
        self.broken = False

    def load_weights(self, source: object) -> None:
        del source
        assert not self.broken, "an engine that ran out of memory was used again"


@dataclass(frozen=True)
class SmallAnswers:
    """So many answers, of which the fifth does not fit alone."""

    count: int

    def measure(self, engine: SmallEngine, limits: BatchLimits = WHOLE) -> pa.Table:
        keys = [f"test/fact-{i:03d}" for i in range(self.count)]
        for piece in limits.pieces([key for key in keys if key not in limits.refused]):
            if len(piece) > 2 or "test/fact-004" in piece:
                engine.broken = True
                raise EngineMemoryError(piece, "CUDA out of memory")
        rows = [{"fact_id": key.partition("/")[2], "split": "test", "tokens": 1} for key in keys]
        return pa.Table.from_pylist(rows, schema=answer_schema())


def test_an_evaluation_goes_on_with_a_fresh_engine_and_smaller_batches(tmp_path: Path) -> None:
    import ray

    starts: list[EngineBase] = []
    small: Any = SmallEngine

    def start(base: EngineBase, _source: object) -> Any:
        starts.append(base)
        worker = ray.remote(EngineWorker).options(num_cpus=0)  # no restarts: memory is no death
        return worker.remote(base, CALM, small)

    engine, base = PooledEngine(start), EngineBase("none", EngineSpec())
    engine.serve(base)
    asked = {ANSWERS: SmallAnswers(40)}
    items = [EvaluationItem(f"m{i}", FolderSource("none"), asked, tmp_path / str(i)) for i in range(2)]
    folders = tmp_path / "session", tmp_path / "damaged"
    evaluate(EvaluationRequest(items, "none", EngineSpec(), *folders), [engine])
    for item in items:
        assert pq.read_table(item.output_dir / "answers.parquet").num_rows == 40
    assert starts == [base] * 5  # 40 questions, 2, 1, and without the one, for the second model again
    engine.end()


class Stopped:
    """Replaces `EngineWorker`; its first process is stopped while it is made, before any watcher runs."""

    def __init__(self, notes: Path) -> None:
        with (notes / "start").open("a") as file:
            file.write("x")
        if (notes / "start").stat().st_size == 1:
            (notes / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)

    def process(self) -> int:
        return os.getpid()


def kill_left(notes: Path) -> None:
    """Ray leaves a stopped process to the end of its node, or kills it already."""
    with suppress(ProcessLookupError):
        os.kill(int((notes / "pid").read_text()), signal.SIGKILL)


def test_an_engine_that_is_stopped_before_its_watcher_runs_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(actors, "BOOT_SECONDS", 5)
    worker = ray.remote(Stopped).options(max_restarts=2, max_task_retries=2, num_cpus=0).remote(tmp_path)
    with closing(StartWatch(CALM.model_copy(update={"timeout_seconds": 1.0}))) as watch:
        watch.add(worker)
        assert ray.get(worker.process.remote(), timeout=90) != int((tmp_path / "pid").read_text())
    assert (tmp_path / "start").stat().st_size == 2
    kill_left(tmp_path)
    ray.kill(worker)


def test_a_scorer_that_is_stopped_before_its_watcher_runs_is_started_anew(
    request_: ScoringRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "BOOT_SECONDS", 20)  # a start beside other tests takes ten
    notes = request_.output_dir.parent / "notes"
    factory = StoppedFactory(Steady, notes, os.getpid())
    score(request_, CALM.model_copy(update={"timeout_seconds": 5.0}), engine=factory)
    assert sum(table.num_rows for table in scored(request_)) == FACTS
    assert (notes / "given").stat().st_size == 2
    kill_left(notes)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # an actor may still look at it


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_in_a_worker_is_an_error_with_its_reason(request_: ScoringRequest) -> None:
    with (
        small_disk(request_.output_dir),
        pytest.raises(UserError, match=r"parquet: cannot be written: No space left"),
    ):
        run(request_, Steady)
    rows, _ = run(request_, Steady)
    assert len(rows) == FACTS
