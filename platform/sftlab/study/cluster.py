"""Joins the Ray cluster that is there, or starts one on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sftlab.errors import UserError
from sftlab.study.runtime import Runtime

# Set for drivers and workers alike, before torch is imported there: one count of threads gives one result.
WORKER_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "RAY_DATA_LOG_LEVEL": "WARNING",
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's own table; sweeps draw theirs
    # Many actors that only wait are how a sweep works, and not an accident.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


@contextmanager
def ray_cluster(runtime: Runtime) -> Iterator[None]:
    """Ray for the time of a run: RAY_ADDRESS or the cluster of a submitted job, else a local one.

    Raises UserError where the runtime asks for GPUs that the cluster does not have.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()})
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    cores = os.cpu_count() or 1
    logging.getLogger("ray").setLevel(logging.WARNING)
    # It warns that token authentication is on, which is as it should be.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address:
        ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": WORKER_ENVIRONMENT})
    else:
        # Ray lets everything else on a machine go first; a run that was asked for need not wait for its own driver.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(
            address="local",
            num_cpus=runtime.logical_cpus or max(4, 2 * cores),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
    try:
        _require_gpus(runtime, ray.cluster_resources().get("GPU", 0))
        yield
    finally:
        ray.shutdown()


def _require_gpus(runtime: Runtime, found: float) -> None:
    wanted = max(
        runtime.engine.engines * runtime.engine.gpus_per_engine,
        runtime.training.workers * runtime.training.gpus_per_worker,
    )
    if wanted > found:
        raise UserError(
            f"The runtime asks for {wanted:g} GPUs, but the cluster has {found:g}. Choose another runtime "
            "file, or set runtime.engine.gpus_per_engine=0 and runtime.training.gpus_per_worker=0."
        )
