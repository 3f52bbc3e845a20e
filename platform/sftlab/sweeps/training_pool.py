"""The pool of training workers of a sweep."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack

from sftlab.cluster.session import await_gpus
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.sweeps.usage import Meter, Usage
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.sft import train_runs
from sftlab.training.side_by_side import Train, cut, work_of

GATHER_SECONDS = 1.0  # a worker group costs seconds to start, so that it waits this long for more runs
MOST_RUNS = 256  # of one worker group: each is locked until all are done, by a claim in an object store

log = logging.getLogger(__name__)


class TrainingPool:
    """Worker groups that train what trials ask for, many runs in one group. A threaded actor; see `train`.

    waits: whether GPUs that are lost may come back, and are waited for.
    """

    def __init__(
        self, groups: int, runtime: Runtime, store: Store, train_runs: Train = train_runs, waits: bool = False
    ) -> None:
        self.runtime, self.store, self.train_runs = runtime, store, train_runs
        self.waits = waits
        self.queue: queue.Queue[SFTRun] = queue.Queue()
        self.futures: dict[str, Future[float]] = {}
        self.work: dict[str, float] = {}
        self.meter = Meter(groups)
        self.lock = threading.Lock()
        self.gathering = threading.Lock()  # of the group that takes runs from the queue
        self.free = groups
        for number in range(groups):
            threading.Thread(target=self._serve, name=f"group-{number}", daemon=True).start()

    def submit(self, runs: Sequence[SFTRun]) -> None:
        """Queue runs, in this order; those that are queued, running or finished already are not queued again.

        Raises UserError where a run cannot be trained (`training.sft.check_runs`).
        """
        from sftlab.training.sft import check_runs

        for run in runs:
            with self.lock:
                known = run.run_id in self.futures
            if known:
                continue
            check_runs([run], self.runtime.training)
            work = work_of(run)
            with self.lock:
                self.work[run.run_id] = work
                if run.run_id not in self.futures:
                    self.futures[run.run_id] = Future()
                    self.meter.add(waiting=1)
                    self.queue.put(run)

    def train(self, run: SFTRun) -> float:
        """Wait until a run is trained; returns the seconds of this run alone.

        Waiting for other runs is left out, and for the worker group, which the first of its runs waits for up to its
        first step. Raises UserError or TrainingError as `training.sft.train_runs` does; a failed run can be asked
        for again.
        """
        self.submit([run])
        with self.lock:
            future = self.futures[run.run_id]
        try:
            return future.result()
        except BaseException:
            with self.lock:
                self.futures.pop(run.run_id, None)
            raise

    def stats(self) -> Usage:
        return self.meter.read()

    def _serve(self) -> None:
        while True:
            with self.gathering:
                batch = self._gather()
            try:
                self.take(batch)
            finally:
                with self.lock:
                    self.free += 1

    def _gather(self) -> list[SFTRun]:
        """What waits, less the shares of the other groups that are free."""
        found = [self.queue.get()]
        time.sleep(GATHER_SECONDS)
        with self.lock:
            free, self.free = self.free, self.free - 1
        while len(found) < free * MOST_RUNS and not self.queue.empty():
            try:
                found.append(self.queue.get_nowait())
            except queue.Empty:
                break
        batch = cut(found, [self.work[run.run_id] for run in found], free)[0][:MOST_RUNS]
        for run in found[len(batch) :]:
            self.queue.put(run)
        return batch

    def take(self, batch: list[SFTRun]) -> None:
        """Train what no other sweep trains. Where locks cannot be had, the error reaches the trials that wait."""
        mine: list[SFTRun] = []
        open_runs = list(batch)  # neither trained nor queued again
        try:
            with ExitStack() as held:
                for run in batch:
                    if held.enter_context(self.store.try_lock(f"run-{run.run_id}")):
                        mine.append(run)
                    else:  # another sweep trains it at this moment; later it will be found
                        open_runs.remove(run)
                        self.queue.put(run)
                if self.waits and mine:  # in vain: an error of all of them, and not of the first alone
                    await_gpus(self.runtime.training_bundles, self.runtime.gpu_wait_minutes, log.warning)
                if mine:
                    open_runs.clear()
                    self._train(mine)
        except Exception as error:  # handed to the trials that wait; this thread serves the next ones
            self.meter.add(waiting=-len(open_runs))
            for run in open_runs:
                self.futures[run.run_id].set_exception(error)

    def _train(self, batch: list[SFTRun]) -> None:
        """Train a batch. Runs are trained in order, so that the first one unfinished is what a failure is of."""
        asked = last = time.monotonic()
        left = {run.run_id: run for run in batch}
        working = False

        def begin() -> None:
            nonlocal last, working
            if not working:
                working, last = True, time.monotonic()
                self.meter.add(starts=1, start_seconds=last - asked)

        def on_event(event: TrainingEvent) -> None:
            nonlocal last
            if event.kind != "skipped":  # found finished, for which no group is started
                begin()
            if event.finished and event.run_id in left:
                del left[event.run_id]
                now = time.monotonic()
                self._settle(event.run_id, now - last)
                last = now

        self.meter.add(busy=1, waiting=-len(batch))
        try:
            self.train_runs(batch, self.runtime.training, on_event, str(self.store.root / "ray-train"))
        except Exception as error:  # handed to the trial that waits for it
            begin()  # a group that did not get so far took its time too
            culprit = next(iter(left), None)
            if culprit is not None:
                del left[culprit]
                self.futures[culprit].set_exception(error)
            self.meter.add(waiting=len(left))
            for run in left.values():
                self.queue.put(run)
        finally:
            self.meter.add(busy=-1)

    def _settle(self, run_id: str, seconds: float) -> None:
        self.meter.add(done=1)
        self.futures[run_id].set_result(seconds)
