"""What the trials of a sweep share: warm engines and worker groups, in actors that outlive a trial.

A trial holds no CPU or GPU itself and only waits; every engine and every worker group is started here, as
many as the cluster holds, so that trials cannot wait for each other in a circle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sftlab.cluster.placement import same_node
from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.inference.engine import EngineFactory
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.store.artifact import Store
from sftlab.sweeps.engine_pool import SweepEnginePool
from sftlab.sweeps.training_pool import TrainingPool
from sftlab.training.sft import train_runs
from sftlab.training.side_by_side import Train

SPARE_CALLS = 8  # besides those of the trials, whose calls block inside the actors
FEWEST_TRIALS = 8


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
    """As many engines as the cluster holds in addition to the worker groups, and trials for all; at least one of each.

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
            f"a sweep trains and answers at the same time: {groups} worker group(s) of {runtime.training.workers} "
            f"x {runtime.training.gpus_per_worker} GPU and {engines} engine(s) of {runtime.engine.gpus_per_engine:g} "
            f"come to {wanted:g} GPUs, and the cluster has {have:g}",
            value=wanted,
            advice=(
                "lower runtime.training.workers (jobs/configs/runtimes/8x-h100-80gb-sweep.yaml does so for one node), "
                "or ask for more GPUs with runtime.engine.engines."
            ),
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

    engines = actor(SweepEnginePool, "engines", sizes.engines, runtime, engine)
    waits = bool(os.environ.get("RAY_ADDRESS"))
    training = actor(TrainingPool, "training", sizes.groups, runtime, store, train_runs, waits)
    return engines, training


StartPools = Callable[[Runtime, PoolSizes, str, Store], tuple[Any, Any]]
