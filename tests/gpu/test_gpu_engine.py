"""Engines of the GPU profile: swaps and restorations equal to fresh engines, draws, and logits as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_inference_engine import (
    Bench,
    Caller,
    folders,
    test_draws_belong_to_their_seeds_and_can_be_extended,
    test_every_swap_equals_a_fresh_engine_and_back_again,
    test_stop_strings_change_the_price_and_not_the_verdict,
)

from sftlab.weights.change_profile import profile
from sftlab.weights.edits import Restoration
from sftlab.weights.restoration import ModelSource, write_restored
from tests.support.inference_toys import RUNTIME, start_ray

__all__ = [
    "folders",
    "test_draws_belong_to_their_seeds_and_can_be_extended",
    "test_every_swap_equals_a_fresh_engine_and_back_again",
    "test_stop_strings_change_the_price_and_not_the_verdict",
]
pytestmark = pytest.mark.slow

# Largest difference of a logit from transformers' float32 on the CPU, as a share of the largest logit: kernels of a
# GPU sum in another order, and with TF32 or bfloat16 in fewer bits.
TOLERANCE = {"llama": 0.01, "llama-tied": 0.01, "llama-tied-bf16": 0.05, "qwen3": 0.05}
SHARE_OF_A_GPU = 0.05  # many engines share one


class GpuBench(Bench):
    """The engines of `test_inference_engine`, which also take models that are mixed while they stream.

    Each call finds no prefix in the cache: where a GPU goes on from a cached one, its kernels may sum in another order,
    and the last bits of two looks at one model would differ.
    """

    def engine(self, folder: str) -> Any:
        engine = super().engine(folder)
        assert engine.llm.reset_prefix_cache()
        return engine

    def restored(self, live: str, source: ModelSource) -> list[Any]:
        self.engine(live).load_weights(source)
        return self.look(live)


@pytest.fixture(scope="module")
def bench(gpus: int) -> Iterator[Any]:
    import ray

    start_ray(Path(__file__).parent)
    runtime = RUNTIME
    if gpus:
        runtime = RUNTIME.model_copy(
            update={"gpus_per_engine": 1, "threads": None, "gpu_memory_utilization": SHARE_OF_A_GPU}
        )
    yield Caller(ray.remote(GpuBench).options(num_gpus=min(gpus, 1)).remote(runtime))
    ray.shutdown()


@pytest.mark.parametrize("name", TOLERANCE)
def test_logits_and_answers_are_those_of_the_cpu(
    bench: Any, folders: dict[str, tuple[str, str]], name: str
) -> None:
    folder = folders[name][0]
    ids, logits, _, _ = bench.look(folder)
    reference = np.array(bench.reference_logits(folder))
    allowed = TOLERANCE[name] * np.abs(reference).max()
    np.testing.assert_allclose(logits, np.take_along_axis(reference, np.array(ids), 1), atol=allowed)
    ranked = np.sort(reference, axis=1)
    sure = ranked[:, -1] - ranked[:, -2] > 2 * allowed
    assert sure.any()
    assert (np.array(ids)[sure, 0] == reference.argmax(axis=1)[sure]).all()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-tied-bf16"])
def test_a_restored_model_is_that_of_its_folder(
    bench: Any, folders: dict[str, tuple[str, str]], name: str, tmp_path: Path
) -> None:
    """Mixed while it streams into a live engine, against a fresh engine of the folder that the CPU wrote."""
    base, tuned = folders[name]
    edit = Restoration(profile(base, tuned, ["30"]).cuts["30"])
    folder = str(write_restored(base, tuned, {"30": edit}, tmp_path)["30"])
    fresh = bench.look(folder)
    assert bench.restored(base, ModelSource(base, tuned, edit)) == fresh
    assert bench.swap(base, tuned) != fresh
