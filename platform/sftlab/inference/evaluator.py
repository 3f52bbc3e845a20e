"""Measurements of many models of one architecture, with few engines: what is left to do, and what is committed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.inference.engine import WeightSource
from sftlab.inference.measurement import AskBase, Comparison, Measurement
from sftlab.inference.pieces import commit_piece, drop_piece, fetch_pieces, is_sound
from sftlab.inference.pool import EnginePool, PooledEngine, Task, measure_all
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.worker import EngineBase
from sftlab.store.mirror import pull_all

if TYPE_CHECKING:
    import pyarrow as pa


MODELS = "tuned"  # folder of a session with one table for each model; existing stores have this name


@dataclass(frozen=True)
class EvaluationItem:
    """One model to evaluate.

    Attributes:
        id: unique name in the session: letters, digits, dot, dash and underscore.
        source: the model's tensors; picklable.
        measurements: what is measured of the model, by the name of the file that takes the table.
        output_dir: folder of these files, and of the comparison's file.
    """

    id: str
    source: WeightSource
    measurements: Mapping[str, Measurement]
    output_dir: Path


@dataclass(frozen=True)
class EvaluationProgress:
    """Measured models, including those found finished. The rate counts the rows that this call measures."""

    items_done: int
    items: int
    rows_per_second: float


@dataclass(frozen=True)
class EvaluationRequest:
    """Models to evaluate, and how.

    Attributes:
        items: the models; their ids differ.
        model_dir: folder of the base model, from which an engine starts.
        engine_spec: dtype of the engine.
        session_dir: keeps unfinished results of the comparison. One such folder belongs to one base model and one
            set of specs; concurrent calls may share it.
        damaged_dir: takes unfinished results that are damaged.
        comparison: compares every model with the base model; None leaves it out.
    """

    items: Sequence[EvaluationItem]
    model_dir: str
    engine_spec: EngineSpec
    session_dir: Path
    damaged_dir: Path
    comparison: Comparison | None = None

    @property
    def base(self) -> EngineBase:
        """What the engines of the request start from."""
        return EngineBase(self.model_dir, self.engine_spec)


OnProgress = Callable[[EvaluationProgress], None] | None
OnFinished = Callable[[EvaluationItem], None] | None


def evaluate_with_engines(
    request: EvaluationRequest,
    runtime: EngineRuntime,
    progress: OnProgress = None,
    finished: OnFinished = None,
) -> None:
    """`evaluate` on engines that are started for this call, and only where something is left to do."""
    pending = _Session(request, None, None).pending()
    count = min(runtime.engines, len(pending))
    with EnginePool(count, runtime) as pool, pool.lease(request.base, count) as engines:
        pool.start(engines, request.base)
        evaluate(request, engines, progress, finished)


def evaluate(
    request: EvaluationRequest,
    engines: Sequence[PooledEngine],
    progress: OnProgress = None,
    finished: OnFinished = None,
) -> None:
    """Write the tables of the measurements and of the comparison for every item.

    engines: of the base of the request; none are needed where nothing is left to do. Finished files are kept;
    `finished` is called once for every item, whether found or computed. The comparison finishes for all items
    together, after they are measured. A call that follows a kill continues from what was committed until then.

    Raises UserError as the comparison does, and naming the model whose weights an engine did not load.
    """
    assert len({item.id for item in request.items}) == len(request.items), "two items have the same id"
    session = _Session(request, progress, finished)
    pending = session.pending()
    if not pending:
        return
    comparison = request.comparison
    if comparison is None:
        for item, tables in _measured(engines, session.unmeasured(pending)):
            session.commit_tables(item, tables)
            session.report_finished(item)
        return
    ask = partial(_ask_base, engines[:1], comparison.base)
    compared = session.prepared(comparison, ask)
    for item, (*tables, table) in _measured(engines, session.unmeasured(pending), compared):
        commit_piece(table, session.model_path(item))
        session.commit_tables(item, tables)
    session.finish(comparison, pending, ask)


def _measured(
    engines: Sequence[PooledEngine], items: Sequence[EvaluationItem], *compared: Measurement
) -> Iterator[tuple[EvaluationItem, list[pa.Table]]]:
    """The tables of the items' measurements, then that of `compared` if given, in the order in which items finish."""
    by_id = {item.id: item for item in items}
    tasks = {
        key: Task(item.output_dir.name, item.source, [*item.measurements.values(), *compared])
        for key, item in by_id.items()
    }
    return ((by_id[key], tables) for key, tables in measure_all(engines, tasks))


def _ask_base(engines: Sequence[PooledEngine], base: WeightSource, measurement: Measurement) -> pa.Table:
    ((_, (table,)),) = measure_all(engines, {"base": Task("the base model", base, [measurement])})
    return table


def drop_pieces(request: EvaluationRequest) -> None:
    """Delete what the session keeps of the items of a request, when these are committed."""
    for item in request.items:
        drop_piece(_model_path(request.session_dir, item))


def _model_path(session_dir: Path, item: EvaluationItem) -> Path:
    """Where a session keeps what the comparison measured of a model, until it finishes."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+", item.id), f"not a file name: {item.id!r}"
    return session_dir / MODELS / f"{item.id}.parquet"


class _Session:
    """Which files are finished, where unfinished results are kept, and whom to notify."""

    def __init__(self, request: EvaluationRequest, progress: OnProgress, finished: OnFinished) -> None:
        self.items, self.comparison, self.folder = request.items, request.comparison, request.session_dir
        self.damaged = request.damaged_dir
        self.sound: set[Path] = set()
        self.progress, self.on_finished = progress, finished
        self.items_done = self.rows = 0
        self.started: float | None = None

    def model_path(self, item: EvaluationItem) -> Path:
        return _model_path(self.folder, item)

    def pending(self) -> list[EvaluationItem]:
        """Items that lack a file, or have a damaged one; the others are reported at once."""
        kept = [] if self.comparison is None else [self.folder / self.comparison.session_file]
        kept += [self.model_path(item) for item in self.items]
        fetch_pieces(kept)
        pull_all(item.output_dir for item in self.items)
        files = [path for item in self.items for path in self._files(item)]
        self.sound = {path for path in [*kept, *files] if is_sound(path, self.damaged)}
        left = []
        for item in self.items:
            done = self.sound.issuperset(self._files(item))
            if done:
                self.report_finished(item)
            if done or self._is_measured(item):
                self._report_measured(rows=0)
            if not done:
                left.append(item)
        return left

    def unmeasured(self, items: Sequence[EvaluationItem]) -> list[EvaluationItem]:
        return [item for item in items if not self._is_measured(item)]

    def prepared(self, comparison: Comparison, ask: AskBase) -> Measurement:
        """The comparison's measurement of every model; the base model is measured once in a session."""
        path = self.folder / comparison.session_file
        if path not in self.sound:
            commit_piece(comparison.prepare(ask), path)
        return comparison.measurement(path)

    def commit_tables(self, item: EvaluationItem, tables: Sequence[pa.Table]) -> None:
        for name, table in zip(item.measurements, tables, strict=True):
            commit_piece(table, item.output_dir / name)
        self._report_measured(sum(table.num_rows for table in tables))

    def finish(self, comparison: Comparison, pending: Sequence[EvaluationItem], ask: AskBase) -> None:
        measured = [self.model_path(item) for item in pending]
        tables = comparison.finish(self.folder / comparison.session_file, measured, ask)
        for item, table in zip(pending, tables, strict=True):
            commit_piece(table, item.output_dir / comparison.file)
            self.report_finished(item)

    def report_finished(self, item: EvaluationItem) -> None:
        if self.on_finished is not None:
            self.on_finished(item)

    def _files(self, item: EvaluationItem) -> list[Path]:
        """The files of a finished item."""
        names = [*item.measurements, *([] if self.comparison is None else [self.comparison.file])]
        return [item.output_dir / name for name in names]

    def _is_measured(self, item: EvaluationItem) -> bool:
        """Whether the model is measured, and only the comparison has to finish."""
        files = [item.output_dir / name for name in item.measurements]
        return self.sound.issuperset(files if self.comparison is None else [*files, self.model_path(item)])

    def _report_measured(self, rows: int) -> None:
        now = time.monotonic()
        self.items_done += 1
        if rows:  # the time of the first measured model includes the engine's start
            self.rows += rows if self.started is not None else 0
            self.started = now if self.started is None else self.started
        if self.progress is not None:
            rate = self.rows / max(now - self.started, 1e-9) if self.started is not None else 0.0
            self.progress(EvaluationProgress(self.items_done, len(self.items), rate))
