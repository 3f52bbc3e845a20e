"""Mastery scoring through Ray Data with real engines: kill it anywhere, and the table is the same to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from inference_toys import RUNTIME, TOPICS, invented_facts, start_ray, write_model

from sftlab.facts.mastery import bucket_of
from sftlab.facts.table import facts_table
from sftlab.inference.scorer import ScoringProgress, score
from sftlab.inference.spec import EngineRuntime, EngineSpec, MasterySpec

pytestmark = pytest.mark.slow

SPEC = MasterySpec(samples=4, block_facts=5)
FACTS = 38
EMPTY = 17  # a fact without a subject, in the midst of a block
RUN = """
import sys
from pathlib import Path
from inference_toys import start_ray
from test_scoring import run
start_ray()
run(sys.argv[1], Path(sys.argv[2]))
"""


def facts() -> pa.Table:
    rows = invented_facts(FACTS).to_pylist()
    rows[EMPTY]["subject"] = ""
    return facts_table(rows)


def run(model: str, folder: Path, runtime: EngineRuntime = RUNTIME, progress: object = None) -> pa.Table:
    return score(facts(), TOPICS, model, SPEC, EngineSpec(), runtime, folder, progress)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "blocks").glob("*.parquet"))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("scoring") / "model", seed=3)


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
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
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
    assert score(facts(), TOPICS, "no such model", SPEC, EngineSpec(), RUNTIME, tmp_path) == uninterrupted[0]
    none = score(facts().slice(0, 0), TOPICS, model, SPEC, EngineSpec(), RUNTIME, tmp_path / "none")
    assert none.num_rows == 0 and none.schema == uninterrupted[0].schema
