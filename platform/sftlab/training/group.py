"""The Ray Train worker group: its resources, where its workers are placed, and how they find each other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from sftlab.training.spec import TrainingRuntime

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
# After it Ray Train takes a rank whose process says nothing for dead: one that is stopped, say.
SILENCE_ENV = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
# Ray Train's own; ranks may wait longer for each other, as for one that writes a large model.
LONGEST_SILENCE = 600.0


def make_trainer(
    main: Callable[[dict[str, Any]], None], config: dict[str, Any], runtime: TrainingRuntime, storage_dir: str
) -> Any:
    """The TorchTrainer of one call, whose workers run `main(config)`.

    Its own storage holds nothing that a later call would read.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # Ray Train has no other setting for it, and sends this one on to its own actors.
    os.environ[SILENCE_ENV] = str(min(LONGEST_SILENCE, runtime.timeout_seconds))
    resources = {"CPU": runtime.cpus_per_worker}
    if runtime.gpus_per_worker:
        resources["GPU"] = runtime.gpus_per_worker
    return TorchTrainer(
        main,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=runtime.workers,
            use_gpu=runtime.gpus_per_worker > 0,
            resources_per_worker=resources,
            placement_strategy=runtime.placement.upper(),
        ),
        torch_config=torch_config("nccl" if runtime.gpus_per_worker else "gloo", runtime.timeout_seconds),
        run_config=RunConfig(
            name=f"ray-train-{uuid4().hex[:12]}",
            storage_path=storage_dir,
            failure_config=FailureConfig(max_failures=runtime.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # of Train v2
        ),
    )


def torch_config(backend: str, timeout_seconds: float) -> Any:
    """Ray Train's TorchConfig; with gloo, workers on several nodes talk over the interface that Ray uses.

    A rank waits for another at most `timeout_seconds`, a whole number of them.

    Left alone, gloo takes the address of the machine's host name, which is often that of the machine itself.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            addresses = worker_group.execute(node_address)
            if len(set(addresses)) > 1:
                worker_group.execute(use_interface)
            super().on_start(worker_group, backend_config)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    kind = Config if backend == "gloo" else TorchConfig
    return kind(backend=backend, timeout_s=math.ceil(timeout_seconds))


def node_address() -> str:
    """The address by which the other nodes reach this one, as Ray knows it."""
    import ray.util

    return str(ray.util.get_node_ip_address())


def use_interface() -> None:
    """Make gloo use the network interface of the node's address, unless the user has chosen one."""
    name = interface_of(node_address())
    if name is not None:
        os.environ.setdefault(GLOO_INTERFACE, name)


def interface_of(address: str) -> str | None:
    """Name of the network interface that has an address, or None; all of 127.0.0.0/8 is the loopback's."""
    import psutil

    if address.startswith("127."):
        address = "127.0.0.1"
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return str(name)
    return None
