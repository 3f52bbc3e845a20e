"""Mastery of many facts: Ray Data streams blocks of facts through vLLM actors.

A block is what one call to an engine covers, what a retry repeats, and what is committed. Seeds belong to rows
and batches to blocks, so that neither a kill, nor a retry, nor the number of engines changes the table.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.templates import Topic
from sftlab.inference.actors import DyingWithEngine, actor_options
from sftlab.inference.blocks import commit_table
from sftlab.inference.engine import Engine
from sftlab.inference.mastery_block import mastery_schema, score_block
from sftlab.inference.spec import EngineRuntime, EngineSpec, MasterySpec
from sftlab.inference.vllm_engine import check_served

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = "block"  # column that carries a block's number through Ray Data


@dataclass(frozen=True)
class ScoringProgress:
    """Counts include blocks found finished; the rate is of this call alone, engine start left out."""

    blocks_done: int
    blocks: int
    tokens: int
    completions_per_second: float


def score(
    facts: pa.Table,
    topics: Mapping[str, Topic],
    model_dir: str,
    spec: MasterySpec,
    engine_spec: EngineSpec,
    runtime: EngineRuntime,
    output_dir: Path,
    progress: Callable[[ScoringProgress], None] | None = None,
) -> pa.Table:
    """Mastery of every fact, in the order of `facts` (columns: `mastery_block.mastery_schema`).

    Finished blocks stand in `output_dir/blocks/00012.parquet` and are not scored again; the caller gives one
    folder to one combination of facts, model and specs. Ray must be initialised. No engine starts where
    nothing is left to score. Raises UserError where the folder holds blocks of other facts.
    """
    import pyarrow as pa

    blocks = split_blocks(facts, spec.block_facts)
    folder = output_dir / "blocks"
    done = {
        i: read_block(block_path(folder, i), block)
        for i, block in enumerate(blocks)
        if block_path(folder, i).exists()
    }
    report = _Reporter(len(blocks), spec.samples, progress)
    for table in done.values():
        report.found(table)
    pending = {i: block for i, block in enumerate(blocks) if i not in done}
    for index, table in _stream(pending, topics, model_dir, spec, engine_spec, runtime):
        commit_table(table, block_path(folder, index))
        done[index] = table
        report.scored(table)
    return pa.concat_tables([mastery_schema().empty_table(), *(done[i] for i in range(len(blocks)))])


def split_blocks(facts: pa.Table, block_facts: int) -> list[pa.Table]:
    """Consecutive slices of at most `block_facts` rows; none of an empty table."""
    return [facts.slice(start, block_facts) for start in range(0, facts.num_rows, block_facts)]


def block_path(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.parquet"


def read_block(path: Path, facts: pa.Table) -> pa.Table:
    """A finished block. Raises UserError where it is damaged or belongs to other facts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable block ({error}); delete it to score it again.") from error
    if table["fact_id"].to_pylist() != facts["fact_id"].to_pylist():
        raise UserError(f"{path}: holds other facts than those asked for; give each run a folder of its own.")
    return table


class _Reporter:
    """Adds up blocks and tells the caller."""

    def __init__(self, blocks: int, samples: int, progress: Callable[[ScoringProgress], None] | None) -> None:
        self.blocks, self.samples, self.progress = blocks, samples, progress
        self.blocks_done = self.tokens = self.completions = 0
        self.busy_since: float | None = None

    def found(self, table: pa.Table) -> None:
        self._add(table)
        self._tell(0.0)

    def scored(self, table: pa.Table) -> None:
        now = time.monotonic()
        self._add(table)
        if self.busy_since is None:  # the first block's time holds the engine's start
            self.busy_since = now
        else:
            self.completions += sum(len(hits or ()) for hits in table["hits"].to_pylist()) * self.samples
        self._tell(self.completions / max(now - self.busy_since, 1e-9))

    def _add(self, table: pa.Table) -> None:
        self.blocks_done += 1
        self.tokens += sum(table["tokens"].to_pylist())

    def _tell(self, rate: float) -> None:
        if self.progress is not None:
            self.progress(ScoringProgress(self.blocks_done, self.blocks, self.tokens, rate))


class BlockScorer:
    """One engine, called by Ray Data with one block at a time."""

    def __init__(
        self,
        topics: Mapping[str, Topic],
        model_dir: str,
        spec: MasterySpec,
        engine_spec: EngineSpec,
        runtime: EngineRuntime,
    ) -> None:
        from sftlab.inference.vllm_engine import VllmEngine

        self.topics, self.spec = topics, spec
        self.engine: Engine = VllmEngine(model_dir, engine_spec, runtime)

    def __call__(self, block: pa.Table) -> pa.Table:
        with DyingWithEngine():
            index = block[BLOCK]
            return score_block(
                block.drop_columns([BLOCK]), self.topics, self.engine, self.spec
            ).append_column(BLOCK, index)


def _stream(
    pending: Mapping[int, pa.Table],
    topics: Mapping[str, Topic],
    model_dir: str,
    spec: MasterySpec,
    engine_spec: EngineSpec,
    runtime: EngineRuntime,
) -> Iterator[tuple[int, pa.Table]]:
    """Scored blocks as they are finished, in any order."""
    if not pending:
        return
    check_served(model_dir, runtime)
    import pyarrow as pa
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    numbered = [
        block.append_column(BLOCK, pa.array([index] * block.num_rows, pa.int32()))
        for index, block in pending.items()
    ]
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # says that bars are off
    with warnings.catch_warnings():
        # Ray 2.60 has no other way yet to bound restarts; its default is to restart a dying engine without end.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        scored = ray.data.from_arrow(numbered).map_batches(
            BlockScorer,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(runtime.engines, len(pending))),
            fn_constructor_args=(dict(topics), model_dir, spec, engine_spec, runtime),
            **actor_options(runtime),
        )
    for table in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for index in dict.fromkeys(table[BLOCK].to_pylist()):
            rows = table.filter(pa.compute.equal(table[BLOCK], index)).drop_columns([BLOCK])
            assert rows.num_rows == pending[index].num_rows, "Ray Data split a block"
            yield index, rows
