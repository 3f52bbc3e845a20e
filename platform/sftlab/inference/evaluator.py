"""Answers and first-token logits of many models of one architecture, with few engines.

An engine starts once, from the base model's folder, and then takes in the weights of one model after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.errors import UserError
from sftlab.inference.actors import (
    LOST_TRIES,
    EngineActor,
    EngineLostError,
    actor_options,
    await_start,
    result,
)
from sftlab.inference.engine import EngineFactory, EngineSwapError, Floats, Ids, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.inference.pieces import commit_piece, drop_piece, fetch_pieces, is_sound
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine, check_served
from sftlab.measurements.divergence import SELECTION, DivergenceInput, _logits_table, _rows, tuned_path
from sftlab.measurements.divergence_prompts import Candidate, answers_near_start, candidates
from sftlab.measurements.spec import AnswerSpec
from sftlab.measurements.tables import read_completions, read_logits
from sftlab.store.mirror import pull_all

if TYPE_CHECKING:
    import pyarrow as pa


ANSWERS = "answers.parquet"
DIVERGENCE = "divergence.parquet"
Evaluated = tuple["pa.Table", Ids, Floats]


@dataclass(frozen=True)
class EvaluationItem:
    """One model to evaluate.

    Attributes:
        id: name, unique in the session: letters, digits, dot, dash and underscore.
        source: the model's tensors; picklable.
        facts: facts to answer, by split.
        output_dir: where answers.parquet (and divergence.parquet) go.
    """

    id: str
    source: WeightSource
    facts: Mapping[str, pa.Table]
    output_dir: Path


@dataclass(frozen=True)
class EvaluationProgress:
    """Models answered, those found finished included; the rate is of this call alone."""

    items_done: int
    items: int
    answers_per_second: float


@dataclass(frozen=True)
class EvaluationRequest:
    """Models to evaluate, and how.

    Attributes:
        items: the models; their ids differ.
        model_dir: folder of the base model, from which an engine starts.
        spec, engine_spec: how questions are answered; the engine's number type.
        session_dir: keeps what a killed call had found until the base model's logits came. One such folder
            belongs to one base model and one set of specs; calls at the same time may share it.
        damaged_dir: takes what a killed call had found and a disk has damaged since.
        divergence: what the first-token divergence needs; None leaves it out.
    """

    items: Sequence[EvaluationItem]
    model_dir: str
    spec: AnswerSpec
    engine_spec: EngineSpec
    session_dir: Path
    damaged_dir: Path
    divergence: DivergenceInput | None = None


Told = Callable[[EvaluationProgress], None] | None
Finished = Callable[[EvaluationItem], None] | None


def evaluate_with_engines(
    request: EvaluationRequest, runtime: EngineRuntime, progress: Told = None, finished: Finished = None
) -> None:
    """`evaluate` on engines that are started for this call, and only where something is left to do."""
    session = _Session(request, None, None)
    pending = session.pending()
    engines = min(runtime.engines, len(pending))
    with _workers(engines, request, runtime) as workers:
        evaluate(request, workers, progress, finished)


def evaluate(
    request: EvaluationRequest,
    workers: Sequence[EngineActor],
    progress: Told = None,
    finished: Finished = None,
) -> None:
    """Write answers.parquet and, with a divergence, divergence.parquet for every item.

    workers: engines as `start_worker` gives them; none are needed where nothing is left to do. Finished files
    are kept; `finished` is called once for every item, whether found or made. The base model's logits come
    last, in one pass for all items, and a call that follows a kill goes on from what was found until then.

    Raises UserError where the mastery table does not belong to the divergence's facts, and naming the model whose
    weights an engine did not take in.
    """
    assert len({item.id for item in request.items}) == len(request.items), "two items have the same id"
    session = _Session(request, progress, finished)
    pending = session.pending()
    if not pending:
        return
    chosen = session.selection(workers[0])
    unanswered = [item for item in pending if not session.is_answered(item)]
    for item, evaluated in _spread(workers, unanswered, chosen, session.top):
        session.commit_answers(item, evaluated, chosen)
    if request.divergence is not None:
        session.commit_divergence(pending, chosen, workers[0], request.divergence.base)


def drop_pieces(request: EvaluationRequest) -> None:
    """Delete what the session keeps of the items of a request, when these are committed."""
    for item in request.items:
        drop_piece(tuned_path(request.session_dir, item))


class _Session:
    """Which pieces stand, where they stand, and whom to tell."""

    def __init__(self, request: EvaluationRequest, progress: Told, finished: Finished) -> None:
        self.items, self.divergence, self.folder = request.items, request.divergence, request.session_dir
        self.damaged = request.damaged_dir
        self.sound: set[Path] = set()
        self.progress, self.finished = progress, finished
        self.items_done = self.rows = 0
        self.started: float | None = None

    @property
    def top(self) -> int:
        return 0 if self.divergence is None else self.divergence.spec.top

    def pending(self) -> list[EvaluationItem]:
        """Items that lack a file, or have a damaged one; the others are reported at once."""
        found = [self.folder / SELECTION, *(tuned_path(self.folder, item) for item in self.items)]
        fetch_pieces(found)
        pull_all(item.output_dir for item in self.items)
        found += [item.output_dir / name for item in self.items for name in (ANSWERS, DIVERGENCE)]
        self.sound = {path for path in found if is_sound(path, self.damaged)}
        left = []
        for item in self.items:
            done = item.output_dir / ANSWERS in self.sound and (
                self.divergence is None or item.output_dir / DIVERGENCE in self.sound
            )
            if done:
                self._tell_finished(item)
            if done or self.is_answered(item):
                self._tell_answered(rows=0)
            if not done:
                left.append(item)
        return left

    def is_answered(self, item: EvaluationItem) -> bool:
        answered = item.output_dir / ANSWERS in self.sound
        return answered and (self.divergence is None or tuned_path(self.folder, item) in self.sound)

    def selection(self, worker: EngineActor) -> list[Candidate]:
        """The facts of the divergence: those whose prompts fit, and which the base model answers near the start.

        The base model's completions are asked for once in a session.
        """
        if self.divergence is None:
            return []
        import pyarrow as pa

        given = self.divergence
        found = candidates(
            given.facts.to_pylist(), given.mastery.to_pylist(), given.topics, given.spec.same_prompt
        )
        path = self.folder / SELECTION
        if path not in self.sound:
            texts = insist(worker, "completions", given.base, found) if found else []
            columns = {
                "fact_id": pa.array([c.fact_id for c in found], pa.string()),
                "template": pa.array([c.template for c in found], pa.int32()),
                "completion": pa.array(texts, pa.string()),
            }
            commit_piece(pa.table(columns), path)
        completions = read_completions(path, len(found))
        return [
            candidate
            for candidate, completion in zip(found, completions, strict=True)
            if completion is not None
            and answers_near_start(completion, candidate.accepted, given.spec.answer_within)
        ]

    def commit_answers(self, item: EvaluationItem, evaluated: Evaluated, chosen: Sequence[Candidate]) -> None:
        answers, ids, logits = evaluated
        if self.divergence is not None:
            table = _logits_table(chosen, ids, {"tuned_logits": logits})
            commit_piece(table, tuned_path(self.folder, item))
        commit_piece(answers, item.output_dir / ANSWERS)
        self._tell_answered(answers.num_rows)
        if self.divergence is None:
            self._tell_finished(item)

    def commit_divergence(
        self,
        pending: Sequence[EvaluationItem],
        chosen: Sequence[Candidate],
        worker: EngineActor,
        base: WeightSource,
    ) -> None:
        """One pass of the base model over all prompts, at the union of the tokens that any item needs."""
        names, count = ("tuned_logits",), len(chosen)
        tuned = {i.id: read_logits(tuned_path(self.folder, i), names, self.top, count) for i in pending}
        ids = {name: table["token_ids"].to_pylist() for name, table in tuned.items()}
        union = [sorted({token for rows in ids.values() for token in rows[i]}) for i in range(len(chosen))]
        logits = insist(worker, "base_logits", base, chosen, union) if chosen else []
        at = [dict(zip(tokens, row, strict=True)) for tokens, row in zip(union, logits, strict=True)]
        for item in pending:
            rows = [[at[i][token] for token in row] for i, row in enumerate(ids[item.id])]
            columns = {
                "tuned_logits": _rows(tuned[item.id]["tuned_logits"].to_pylist(), self.top),
                "base_logits": _rows(rows, self.top),
            }
            table = _logits_table(chosen, np.array(ids[item.id], np.int64).reshape(-1, self.top), columns)
            commit_piece(table, item.output_dir / DIVERGENCE)
            self._tell_finished(item)

    def _tell_answered(self, rows: int) -> None:
        now = time.monotonic()
        self.items_done += 1
        if rows:  # the first answered model's time holds the engine's start
            self.rows += rows if self.started is not None else 0
            self.started = now if self.started is None else self.started
        if self.progress is not None:
            rate = self.rows / max(now - self.started, 1e-9) if self.started is not None else 0.0
            self.progress(EvaluationProgress(self.items_done, len(self.items), rate))

    def _tell_finished(self, item: EvaluationItem) -> None:
        if self.finished is not None:
            self.finished(item)


def start_worker(
    request: EvaluationRequest,
    runtime: EngineRuntime,
    name: str | None = None,
    engine: EngineFactory = VllmEngine,
) -> EngineActor:
    """An engine in an actor, for any request of the same base model and specs. `name` begins its name in Ray.

    Raises UserError where the folder or the runtime cannot be served.
    """
    import ray

    from sftlab.inference.evaluation_worker import EvaluationWorker

    check_served(request.model_dir, runtime)
    remote, options = ray.remote(EvaluationWorker), actor_options(runtime)

    def start(before: int) -> Any:
        named = remote.options(**options, name=name and f"{name}-{before}")
        return named.remote(request.model_dir, request.spec, request.engine_spec, runtime, engine)

    return EngineActor(start)


@contextmanager
def _workers(count: int, request: EvaluationRequest, runtime: EngineRuntime) -> Iterator[list[EngineActor]]:
    """Engines in actors, ended with the context."""
    workers = [start_worker(request, runtime) for _ in range(count)]
    try:
        await_start([worker.actor for worker in workers], runtime)
        yield workers
    finally:
        for worker in workers:
            worker.end()


def insist(worker: EngineActor, method: str, *arguments: Any) -> Any:
    """A worker's method of the base model, tried again in smaller batches where its engine runs out of memory, and
    where it is lost.

    Raises UserError where no smaller batch is left to try, or nothing comes of it.
    """
    limits, tries = WHOLE, LOST_TRIES
    while True:
        try:
            return result(getattr(worker.actor, method).remote(*arguments, limits))
        except EngineMemoryError as error:
            limits = limits.after(error)
            worker.renew()
        except EngineSwapError as error:
            raise _not_swapped("the base model", error) from error
        except EngineLostError:
            tries -= 1
            if not tries:
                raise


def _not_swapped(model: str, error: EngineSwapError) -> UserError:
    """What is told where an engine does not compute with the weights of a model."""
    return UserError(
        f"An engine did not take in the weights of {model}, and was stopped before it answered for it: {error} "
        "Finished models are kept; run again, with a new engine, to go on. If it fails at the same model again, "
        "this vLLM cannot swap its weights: that is a bug to report."
    )


def _spread(
    workers: Sequence[EngineActor], items: Sequence[EvaluationItem], chosen: Sequence[Candidate], top: int
) -> Iterator[tuple[EvaluationItem, Evaluated]]:
    """Each engine takes the next item when it is free; results come as they are finished."""
    import ray

    chosen_ref = ray.put(list(chosen))
    queue = iter(items)
    running: dict[Any, tuple[EngineActor, EvaluationItem, BatchLimits]] = {}
    tries = LOST_TRIES

    def give(worker: EngineActor, item: EvaluationItem, limits: BatchLimits) -> None:
        task = worker.actor.evaluate.remote(item.source, dict(item.facts), chosen_ref, top, limits)
        running[task] = (worker, item, limits)

    for worker, item in zip(workers, queue, strict=False):
        give(worker, item, WHOLE)
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        worker, item, limits = running.pop(ready)
        try:
            evaluated = result(ready)
        except EngineMemoryError as error:
            limits = limits.after(error)
            worker.renew()
            give(worker, item, limits)
            continue
        except EngineSwapError as error:
            raise _not_swapped(item.output_dir.name, error) from error
        except EngineLostError:
            tries -= 1
            if not tries:
                raise
            give(worker, item, limits)
            continue
        tries = LOST_TRIES
        following = next(queue, None)
        if following is not None:
            give(worker, following, BatchLimits(limits.rows))  # the others may fit there
        yield item, evaluated
