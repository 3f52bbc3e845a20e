"""Many runs in several worker groups side by side.

A run has the same bits in whichever group it is trained, and after whichever other run: an engine that is kept is as a
new one (`live.py`). So the number of groups changes no result. The number of workers of a group changes the last bits
of float sums.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from sftlab.store.mirror import pull
from sftlab.training.records import SFTResult, SFTRun, TrainingEvent
from sftlab.training.sft import STOP_SECONDS, check_resources, check_runs, ignore, train_runs
from sftlab.training.spec import TrainingRuntime

CPU_RANK_BYTES = 2 * 2**30  # that `fitting_groups` counts for a rank without a GPU

Train = Callable[
    [Sequence[SFTRun], TrainingRuntime, Callable[[TrainingEvent], None] | None, str], list[SFTResult]
]


class _Stopped(Exception):
    """Another group failed, or the caller wants no more."""


def fitting_groups(runtime: TrainingRuntime, resources: Mapping[str, float], cores: int) -> int:
    """How many groups of this runtime Ray's `resources` hold at once; at least one.

    cores: real ones, of which Ray may count each several times.
    """
    if runtime.gpus_per_worker:
        most = resources.get("GPU", 0.0) / (runtime.gpus_per_worker * runtime.workers)
    else:
        most = min(
            cores / (runtime.threads * runtime.workers),
            resources.get("CPU", 0.0) / (runtime.cpus_per_worker * runtime.workers),
            resources.get("memory", 0.0) / (CPU_RANK_BYTES * runtime.workers),
        )
    return max(1, int(most))


def shares(runs: Sequence[SFTRun], groups: int) -> list[list[SFTRun]]:
    """The runs cut into as many parts of about equal work at most, in their order, so that engines change least."""
    if groups == 1 or len(runs) < 2:
        return [list(runs)] if runs else []
    return cut(runs, [work_of(run) for run in runs], groups)


def cut(runs: Sequence[SFTRun], work: Sequence[float], groups: int) -> list[list[SFTRun]]:
    """`shares` of runs of this much work each: a run belongs to the part in which the middle of its work is."""
    parts: list[list[SFTRun]] = [[] for _ in range(groups)]
    whole, before = sum(work), 0.0
    for run, size in zip(runs, work, strict=True):
        parts[min(groups - 1, int(groups * (before + size / 2) / whole))].append(run)
        before += size
    return [part for part in parts if part]


def work_of(run: SFTRun) -> float:
    """What a run costs, for comparison with others: examples times epochs times the size of the base."""
    return _rows(run.train_file) * run.spec.epochs * _bytes(run.base_model)


@cache
def _rows(train_file: str) -> int:
    import pyarrow.parquet as pq

    rows: int = pq.read_metadata(pull(Path(train_file))).num_rows
    return rows


@cache
def _bytes(folder: str) -> int:
    return sum(file.stat().st_size for file in pull(Path(folder)).glob("*.safetensors"))


def train_side_by_side(
    runs: Sequence[SFTRun],
    runtime: TrainingRuntime,
    groups: int,
    on_progress: Callable[[TrainingEvent], None] | None = None,
    storage_dir: str = "",
    train: Train = train_runs,
) -> list[SFTResult]:
    """`train_runs` in as many worker groups at most, each with its share of the runs; results in the order of the runs.

    Where a group fails, the others save a checkpoint and end; what is finished until then is reported. Raises what the
    group that failed first raises.
    """
    check_runs(runs, runtime)
    parts = shares(runs, groups)
    if len(parts) < 2:
        return train(runs, runtime, on_progress, storage_dir)
    check_resources(runtime, len(parts))
    results = _Groups(parts, runtime, storage_dir, train).run(on_progress or ignore)
    return [results[run.run_id] for run in runs]


class _Groups:
    """A thread for each worker group. Events are handed to the thread that calls `run`."""

    def __init__(
        self, parts: Sequence[Sequence[SFTRun]], runtime: TrainingRuntime, storage_dir: str, train: Train
    ) -> None:
        self.runtime, self.storage_dir, self.train = runtime, storage_dir, train
        self.events: queue.Queue[TrainingEvent | BaseException | None] = (
            queue.Queue()
        )  # None: a group has ended
        self.ending = threading.Event()
        self.results: dict[str, SFTResult] = {}
        self.threads = [
            threading.Thread(target=self._train, args=(part,), name=f"group-{number}", daemon=True)
            for number, part in enumerate(parts)
        ]

    def run(self, report: Callable[[TrainingEvent], None]) -> dict[str, SFTResult]:
        """Train all parts; results by run_id. Raises the error of the group that failed first."""
        failures: list[BaseException] = []
        left = len(self.threads)
        for thread in self.threads:
            thread.start()
        try:
            while left:
                event = self.events.get()
                if event is None:
                    left -= 1
                elif isinstance(event, BaseException):
                    failures.append(event)
                    self.ending.set()
                else:
                    report(event)
        except BaseException:  # raised again: Ctrl-C, or the caller's own error while it took an event
            self.ending.set()
            for thread in self.threads:
                thread.join(STOP_SECONDS)
            raise
        if failures:
            raise failures[0]
        return self.results

    def _train(self, part: Sequence[SFTRun]) -> None:
        try:
            found = self.train(part, self.runtime, self._pass_on, self.storage_dir)
            self.results.update({result.run_id: result for result in found})
        except _Stopped:
            pass
        except BaseException as error:  # handed to the thread that waits
            self.events.put(error)
        finally:
            self.events.put(None)

    def _pass_on(self, event: TrainingEvent) -> None:
        self.events.put(event)
        if self.ending.is_set():
            raise _Stopped
