"""Mastery of many facts: Ray Data hands blocks of facts to vLLM actors.

A block is what one call to an engine covers, what a retry repeats, and what is committed, by the actor that
scored it. Seeds belong to rows and batches to blocks, so that neither a kill, nor a retry, nor the number of
engines changes the table. No process holds more than a few blocks, whatever the number of facts.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.templates import Topic
from sftlab.inference.actors import (
    LOST_TRIES,
    EngineLostError,
    StartWatch,
    actor_options,
    as_raised,
    wrap_error,
)
from sftlab.inference.engine import EngineFactory
from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.inference.pieces import commit_table
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine, check_served
from sftlab.inference.worker import EngineBase, EngineWorker
from sftlab.measurements.fact_blocks import FactBlocks, FactReader
from sftlab.measurements.mastery import check_rows, score_block
from sftlab.measurements.spec import MasterySpec
from sftlab.store.mirror import drop, pull, push

if TYPE_CHECKING:
    import pyarrow as pa

# Tasks of Ray Data; each costs its driver about 10 ms and 50 kB, so that larger tables get larger tasks
TASKS = 512
NOISY = (
    "ray.data._internal.progress",
    "ray.data._internal.execution.streaming_executor_state",
    "ray.data.exceptions",
)
BLOCK = "block"  # the one column of what goes to the actors
CHECKED = ("fact_id", "tokens")  # columns of a finished block that a later run looks at


log = logging.getLogger(__name__)


class DamagedBlockError(UserError):
    """A finished block whose bytes are not those that were written."""


@dataclass(frozen=True)
class ScoringRequest:
    """Facts to score, and how.

    Attributes:
        facts: the facts in blocks of `spec.block_facts`.
        topics: their mapping templates.
        model_dir: folder of the model.
        spec, engine_spec: what is measured.
        output_dir: keeps the finished blocks, as `blocks/00012.parquet`. The caller gives one folder to one
            combination of facts, model and specs.
    """

    facts: FactBlocks
    topics: Mapping[str, Topic]
    model_dir: str
    spec: MasterySpec
    engine_spec: EngineSpec
    output_dir: Path

    @property
    def blocks_dir(self) -> Path:
        return self.output_dir / "blocks"

    def path(self, index: int) -> Path:
        """Where a block is once it is finished."""
        return self.blocks_dir / f"{index:05d}.parquet"


@dataclass(frozen=True)
class ScoringProgress:
    """Counts include blocks found finished; the rate is of this call alone, engine start left out."""

    blocks_done: int
    blocks: int
    tokens: int
    completions_per_second: float


def score(
    request: ScoringRequest,
    runtime: EngineRuntime,
    progress: Callable[[ScoringProgress], None] | None = None,
    engine: EngineFactory = VllmEngine,
) -> None:
    """Score every block that is not finished; `scored` then reads them.

    Ray must be initialised. No engine starts where nothing is left to score. Where an engine runs out of memory, all
    that is left is scored in smaller batches. Raises UserError where the folder holds blocks of other facts, and
    where engines die again and again.
    """
    limits, tries = WHOLE, LOST_TRIES
    while True:
        try:
            return _score(request, runtime, progress, engine, limits)
        except EngineMemoryError as error:
            limits = limits.after(error)
        except EngineLostError:
            tries -= 1
            if not tries:
                raise


def _score(
    request: ScoringRequest,
    runtime: EngineRuntime,
    progress: Callable[[ScoringProgress], None] | None,
    engine: EngineFactory,
    limits: BatchLimits,
) -> None:
    report = _Reporter(len(request.facts), request.spec.samples, progress)
    pending = []
    reader = FactReader(request.facts, ["fact_id"])
    # One listing: a shared mount takes a millisecond for each file that is asked for by name.
    finished = {path.name for path in request.blocks_dir.iterdir()} if request.blocks_dir.is_dir() else set()
    for index in range(len(request.facts)):
        table = None
        if request.path(index).name in finished:
            table = sound_block(request.path(index), reader.block(index), CHECKED)
        if table is None:
            pending.append(index)
        else:
            report.found(sum(table["tokens"].to_pylist()))
    if pending:
        check_served(request.model_dir, runtime)
        streamed = _stream(request, pending, runtime, engine, limits)
        with as_raised(), closing(streamed):
            for blocks in streamed:
                for prompts, tokens in zip(
                    blocks["prompts"].to_pylist(), blocks["tokens"].to_pylist(), strict=True
                ):
                    report.scored(prompts, tokens)


def scored(request: ScoringRequest) -> Iterator[pa.Table]:
    """The finished blocks in the order of the facts (columns: `mastery_block.mastery_schema`).

    Raises UserError where one belongs to other facts, and DamagedBlockError where one is damaged in what `score` does
    not read of it.
    """
    reader = FactReader(request.facts, ["fact_id"])
    for index in range(len(request.facts)):
        yield read_block(request.path(index), reader.block(index))


def drop_damaged(request: ScoringRequest) -> None:
    """Read all finished blocks whole, and delete the damaged ones, so that `score` scores them again."""
    reader = FactReader(request.facts, ["fact_id"])
    for index in range(len(request.facts)):
        sound_block(request.path(index), reader.block(index))


def read_block(path: Path, facts: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """A finished block, its pages checked. Raises UserError where it belongs to other facts or cannot be read.

    Raises DamagedBlockError, which is one, where its bytes are not those that were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # For one small file the reader of data sets costs more than the reading.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows != facts.num_rows:
                raise ValueError(f"has {file.metadata.num_rows} facts and not {facts.num_rows}")
            table = file.read(columns)
        check_rows(table, columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        refused = (
            isinstance(error, OSError) and error.errno is not None
        )  # by the file system, not by the parser
        kind = UserError if refused else DamagedBlockError
        raise kind(
            f"is not a readable block ({error})", place=path, advice="delete it to score it again."
        ) from error
    if table["fact_id"].to_pylist() != facts["fact_id"].to_pylist():
        raise UserError(
            "holds other facts than those asked for", place=path, advice="give each run a separate folder."
        )
    return table


def sound_block(path: Path, facts: pa.Table, columns: Sequence[str] | None = None) -> pa.Table | None:
    """`read_block`; None for a damaged block, which is logged and deleted, so that it is scored again."""
    try:
        return read_block(path, facts, columns)
    except DamagedBlockError as error:
        log.warning("%s It is deleted and scored again.", error)
        drop(path)
        return None


class _Reporter:
    """Adds up blocks and notifies the caller."""

    def __init__(self, blocks: int, samples: int, progress: Callable[[ScoringProgress], None] | None) -> None:
        self.blocks, self.samples, self.progress = blocks, samples, progress
        self.blocks_done = self.tokens = self.completions = 0
        self.busy_since: float | None = None

    def found(self, tokens: int) -> None:
        self._add(tokens)
        self._report(0.0)

    def scored(self, prompts: int, tokens: int) -> None:
        now = time.monotonic()
        self._add(tokens)
        if self.busy_since is None:  # the first block's time holds the engine's start
            self.busy_since = now
        else:
            self.completions += prompts * self.samples
        self._report(self.completions / max(now - self.busy_since, 1e-9))

    def _add(self, tokens: int) -> None:
        self.blocks_done += 1
        self.tokens += tokens

    def _report(self, rate: float) -> None:
        if self.progress is not None:
            self.progress(ScoringProgress(self.blocks_done, self.blocks, self.tokens, rate))


class BlockScorer(EngineWorker):
    """One engine, called by Ray Data with the numbers of some blocks at a time."""

    def __init__(
        self, request: ScoringRequest, runtime: EngineRuntime, engine: EngineFactory, limits: BatchLimits
    ) -> None:
        super().__init__(EngineBase(request.model_dir, request.engine_spec), runtime, engine)
        self.request, self.limits = request, limits
        pull(request.facts.folder)
        self.reader = FactReader(request.facts)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        """Commit the blocks; returns `prompts` and `tokens` (both int64) of each."""
        import pyarrow as pa

        with wrap_error():
            tables = map(self._score, numbers[BLOCK].to_pylist())
            streamed = [(prompts_of(t), sum(t["tokens"].to_pylist())) for t in tables]
        return pa.table(dict(zip(("prompts", "tokens"), map(list, zip(*streamed, strict=True)), strict=True)))

    def _score(self, index: int) -> pa.Table:
        facts, path = self.reader.block(index), self.request.path(index)
        # Where this block was scored before, by an actor that died.
        if path.exists() and (found := sound_block(path, facts)) is not None:
            push(path)  # the actor may have died before it had done so
            return found
        topics, spec = self.request.topics, self.request.spec
        table = self.use(lambda engine: score_block(facts, topics, engine, spec, self.limits))
        commit_table(table, path, checksums=True)
        return table


def prompts_of(block: pa.Table) -> int:
    return sum(len(hits) for hits in block["hits"].to_pylist() if hits is not None)


def tasks_of(pending: Sequence[int], engines: int) -> list[Sequence[int]]:
    """Consecutive blocks for each task: one block where there are few, so that no engine waits for the last ones."""
    size = -(-len(pending) // max(TASKS, 32 * engines))
    return [pending[start : start + size] for start in range(0, len(pending), max(1, size))]


def _stream(
    request: ScoringRequest,
    pending: Sequence[int],
    runtime: EngineRuntime,
    engine: EngineFactory,
    limits: BatchLimits,
) -> Generator[pa.Table]:
    """What `BlockScorer` returns for each task, as they are finished, in any order.

    A row is the number of a block, and the engine's process reads its facts (docs/design/inference.md says why).
    """
    import pyarrow as pa
    import ray.data

    tasks = tasks_of(pending, runtime.engines)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.issue_detectors_config.detectors = []  # they ask for names of actors that they never make
    for name in NOISY:  # they say that bars are off, and print the trace of what is raised here anyway
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Not `ray.data.range`: its reading tasks would wait for a CPU where engines take all of them.
    numbers = [pa.table({BLOCK: list(task)}) for task in tasks]
    with closing(StartWatch(runtime)) as watch:
        with warnings.catch_warnings():
            # Ray 2.60 has no other way yet to bound restarts (its default is to restart a dying engine without end),
            # and none to get at an actor of the pool but by a name.
            warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
            done = ray.data.from_arrow(numbers).map_batches(
                BlockScorer,
                batch_size=None,
                batch_format="pyarrow",
                # One task in hand and one to go on with: a longer queue would leave other engines idle at the end.
                compute=ray.data.ActorPoolStrategy(
                    size=min(runtime.engines, len(tasks)), max_tasks_in_flight_per_actor=2
                ),
                fn_constructor_args=(request, runtime, engine, limits),
                ray_remote_args_fn=watch.options,
                **actor_options(runtime),
            )
        yield from done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
