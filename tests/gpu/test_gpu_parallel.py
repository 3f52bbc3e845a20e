"""An engine over two GPUs: swaps equal to fresh engines, and each worker's proof of its part of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_gpu_engine import SHARE_OF_A_GPU, GpuBench
from test_inference_engine import Caller

from sftlab.inference.swap import swap_in_worker
from tests.support.inference_toys import RUNTIME, FolderSource, start_ray, write_model

pytestmark = pytest.mark.slow
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}  # which two workers can divide


def forgetful_swap(worker: Any, source: FolderSource) -> tuple[str, ...] | None:
    """A swap that reads the tensors, and leaves the live model as it is."""
    loading = worker.model_runner.reload_weights
    worker.model_runner.reload_weights = lambda weights_iterator: [None for _ in weights_iterator]
    try:
        return swap_in_worker(worker, source, 1)
    finally:
        worker.model_runner.reload_weights = loading


class ParallelBench(GpuBench):
    def engine(self, folder: str) -> Any:
        from sftlab.inference import vllm_engine

        if not self.runtime.gpus_per_engine:  # refused on the CPU, where vLLM can do it all the same
            vllm_engine.check_engine_runtime = lambda _runtime: None
        return super().engine(folder)

    def forgetful(self, live: str, other: str) -> list[tuple[str, ...] | None]:
        found: list[tuple[str, ...] | None] = self.engine(live).llm.collective_rpc(
            forgetful_swap, args=(FolderSource(other),)
        )
        return found


@pytest.fixture(scope="module")
def bench(gpus: int) -> Iterator[Any]:
    import ray

    if gpus == 1:
        pytest.skip("one GPU here, and an engine with tensor_parallel=2 needs two")
    start_ray(Path(__file__).parent)
    runtime = RUNTIME.model_copy(update={"tensor_parallel": 2})
    if gpus:
        share = {"gpus_per_engine": 2, "threads": None, "gpu_memory_utilization": SHARE_OF_A_GPU}
        runtime = runtime.model_copy(update=share)
    yield Caller(ray.remote(ParallelBench).options(num_gpus=min(gpus, 2)).remote(runtime))
    ray.shutdown()


@pytest.mark.parametrize("tied", [False, True])
def test_a_swap_over_two_workers_equals_a_fresh_engine_and_a_stale_part_is_found(
    bench: Any, tied: bool, tmp_path: Path
) -> None:
    one, two = (write_model(tmp_path / str(seed), "llama", tied, "float32", seed, **HEADS) for seed in (1, 2))
    fresh = bench.look(two)
    assert bench.look(one) != fresh and bench.swap(one, two) == fresh
    told = bench.forgetful(one, one)
    assert len(told) == 2 and all("other weights after a swap" in (what or ("",))[0] for what in told)
