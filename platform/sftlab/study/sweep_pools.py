"""What the trials of a sweep share: warm engines and worker groups, in actors that outlive a trial.

A trial holds no CPU or GPU itself and only waits; every engine and every worker group is started here, as
many as the cluster holds, so that trials cannot wait for each other in a circle.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from sftlab.errors import UserError
from sftlab.inference.actors import EngineActor, await_start
from sftlab.inference.engine import EngineFactory
from sftlab.inference.evaluator import EvaluationRequest
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.placement import same_node
from sftlab.store.artifact import Store
from sftlab.study.cluster import await_gpus, training_bundles
from sftlab.study.runtime import Runtime
from sftlab.training.records import SFTResult, SFTRun, TrainingEvent
from sftlab.training.sft import train_runs
from sftlab.training.spec import TrainingRuntime

GATHER_SECONDS = 1.0  # a worker group costs seconds to start, so that it waits this long for more runs
MOST_RUNS = 256  # of one worker group: each is locked until all are done, by a claim in an object store
SPARE_CALLS = 8  # beside the trials, whose calls block inside the actors
FEWEST_TRIALS = 8

log = logging.getLogger(__name__)

Train = Callable[
    [Sequence[SFTRun], TrainingRuntime, Callable[[TrainingEvent], None] | None, str], list[SFTResult]
]


@dataclass(frozen=True)
class PoolSizes:
    """Engines, training worker groups and trials that run at once."""

    engines: int
    groups: int
    trials: int


def cluster_sizes(runtime: Runtime) -> PoolSizes:
    """`pool_sizes` of the cluster that this process has joined."""
    import ray

    with_cpus = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
    return pool_sizes(runtime, ray.cluster_resources(), with_cpus)


def pool_sizes(runtime: Runtime, resources: Mapping[str, float], nodes: int = 1) -> PoolSizes:
    """As many engines as the cluster holds beside the worker groups; at least one of each. Trials for all of them.

    Where engines take GPUs they get all that training leaves free. On CPUs an engine uses every core of its
    machine, so there is one for each of the `nodes` with CPUs, or as many as the runtime file says if that is more.

    Raises UserError where the cluster's GPUs do not hold the worker groups and the engines together.
    """
    groups, have = runtime.sweep.training_groups, resources.get("GPU", 0.0)
    trained = groups * runtime.training.workers * runtime.training.gpus_per_worker
    engines = _engines(runtime, have - trained, nodes)
    wanted = trained + engines * runtime.engine.gpus_per_engine
    if wanted > have:
        raise UserError(
            f"A sweep trains and answers at the same time: {groups} worker group(s) of {runtime.training.workers} "
            f"x {runtime.training.gpus_per_worker} GPU and {engines} engine(s) of {runtime.engine.gpus_per_engine:g} "
            f"come to {wanted:g} GPUs, and the cluster has {have:g}. Lower "
            "runtime.training.workers (jobs/configs/runtimes/8x-h100-80gb-sweep.yaml does so for one node), or ask for "
            "more GPUs with runtime.engine.engines."
        )
    # One for each engine, and more that train or profile in the meantime; a trial is a process of 230 MB.
    trials = max(FEWEST_TRIALS, engines + engines // 4 + 2 * groups)
    return PoolSizes(engines, groups, runtime.sweep.trials or trials)


def _engines(runtime: Runtime, free: float, nodes: int) -> int:
    """How many engines there are, where training leaves so many GPUs free."""
    if runtime.sweep.engines is not None:
        return runtime.sweep.engines
    if runtime.engine.gpus_per_engine == 0:
        return max(runtime.engine.engines, nodes)
    return max(1, int(free // runtime.engine.gpus_per_engine))


@dataclass
class Usage:
    """What a pool has done so far; seconds add up over its engines or groups."""

    size: int
    elapsed: float = 0.0  # since the pool was made
    starts: int = 0
    start_seconds: float = 0.0  # from asking for an engine or group until it works
    busy: int = 0
    busy_seconds: float = 0.0
    waiting: int = 0
    done: int = 0


class Meter:
    """Counts what a pool does; callable from all of its threads."""

    def __init__(self, size: int) -> None:
        self._usage, self._lock = Usage(size), threading.Lock()
        self._made = self._last = time.monotonic()

    def add(
        self, *, waiting: int = 0, busy: int = 0, starts: int = 0, done: int = 0, start_seconds: float = 0.0
    ) -> None:
        """Add to the counts."""
        with self._lock:
            self._tick()
            usage = self._usage
            usage.waiting, usage.busy = usage.waiting + waiting, usage.busy + busy
            usage.starts, usage.done = usage.starts + starts, usage.done + done
            usage.start_seconds += start_seconds

    def read(self) -> Usage:
        """A copy of the counts at this moment."""
        with self._lock:
            self._tick()
            return replace(self._usage)

    def _tick(self) -> None:
        now = time.monotonic()
        self._usage.busy_seconds += self._usage.busy * (now - self._last)
        self._usage.elapsed, self._last = now - self._made, now


class EnginePool:
    """Engines that take the models of one trial after another. A threaded actor; see `evaluate`."""

    def __init__(self, engines: int, runtime: Runtime, name: str, engine: EngineFactory = VllmEngine) -> None:
        self.name, self.engine = name, engine
        self.runtime = runtime.engine
        if runtime.sweep.threads is not None:
            self.runtime = runtime.engine.model_copy(update={"threads": runtime.sweep.threads})
        self.free: queue.Queue[int] = queue.Queue()
        for number in range(engines):
            self.free.put(number)
        self.workers: dict[int, EngineActor] = {}
        self.meter = Meter(engines)

    def evaluate(self, request: EvaluationRequest) -> float:
        """Answer with all models of a request on one engine; returns the seconds it took.

        Waiting for an engine, and for its start, is left out. Raises as `inference.evaluator.evaluate` does; the engine
        is then started anew for the next request.
        """
        from sftlab.inference.evaluator import evaluate

        self.meter.add(waiting=1)
        number = self.free.get()
        self.meter.add(waiting=-1, busy=1)
        try:
            worker = self._worker(number, request)
            started = time.monotonic()
            evaluate(request, [worker])
            self.meter.add(done=len(request.items))
        except BaseException:  # raised again: an engine that failed is in an unknown state
            self._drop(number)
            raise
        finally:
            self.meter.add(busy=-1)
            self.free.put(number)
        return time.monotonic() - started

    def stats(self) -> Usage:
        return self.meter.read()

    def _worker(self, number: int, request: EvaluationRequest) -> EngineActor:
        """The engine of this number, started if there is none."""
        from sftlab.inference.evaluator import start_worker

        if number not in self.workers:
            name, asked = f"{self.name}-engine-{number}", time.monotonic()
            self.workers[number] = start_worker(request, self.runtime, name, self.engine)
            self.meter.add(starts=1)
            await_start([self.workers[number].actor], self.runtime)
            self.meter.add(start_seconds=time.monotonic() - asked)
        return self.workers[number]

    def _drop(self, number: int) -> None:
        worker = self.workers.pop(number, None)
        if worker is not None:
            worker.end()


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
        self.meter = Meter(groups)
        self.lock = threading.Lock()
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
            with self.lock:
                if run.run_id not in self.futures:
                    self.futures[run.run_id] = Future()
                    self.meter.add(waiting=1)
                    self.queue.put(run)

    def train(self, run: SFTRun) -> float:
        """Wait until a run is trained; returns its own seconds.

        Waiting for other runs is left out, and for the worker group, which the first of its runs waits for up to its
        own first step. Raises UserError or TrainingError as `training.sft.train_runs` does; a failed run can be asked
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
            batch = [self.queue.get()]
            time.sleep(GATHER_SECONDS)
            while len(batch) < MOST_RUNS and not self.queue.empty():
                try:
                    batch.append(self.queue.get_nowait())
                except queue.Empty:
                    break
            self._take(batch)

    def _take(self, batch: list[SFTRun]) -> None:
        """Train what no other sweep trains. Where locks cannot be had, the trials that wait are told."""
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
                    await_gpus(training_bundles(self.runtime), self.runtime, log.warning)
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

        def told(event: TrainingEvent) -> None:
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
            self.train_runs(batch, self.runtime.training, told, str(self.store.root / "ray-train"))
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


def start_pools(
    runtime: Runtime,
    sizes: PoolSizes,
    name: str,
    store: Store,
    engine: EngineFactory = VllmEngine,
    train_runs: Train = train_runs,
) -> tuple[Any, Any]:
    """Both pools as named actors of this driver, which end with it: (engines, training)."""
    import ray

    def actor(pool: type, which: str, *arguments: Any) -> Any:
        options = {
            "name": f"{name}-{which}",
            "num_cpus": 0,
            "scheduling_strategy": same_node(),
            "max_concurrency": sizes.trials + SPARE_CALLS,
        }
        return ray.remote(pool).options(**options).remote(*arguments)

    engines = actor(EnginePool, "engines", sizes.engines, runtime, name, engine)
    waits = bool(os.environ.get("RAY_ADDRESS"))
    training = actor(TrainingPool, "training", sizes.groups, runtime, store, train_runs, waits)
    return engines, training


StartPools = Callable[[Runtime, PoolSizes, str, Store], tuple[Any, Any]]
