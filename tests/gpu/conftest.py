"""What only an accelerator can show. With SFTLAB_TEST_DEVICE=cpu the same tests run on the CPU, to test themselves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "ray"))  # their toys and, where they agree, their tests


@pytest.fixture(scope="session")
def gpus() -> int:
    """GPUs to test on; 0 tests on the CPU. Skips where there are none."""
    if os.environ.get("SFTLAB_TEST_DEVICE", "cuda") == "cpu":
        return 0
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        pytest.skip("no CUDA device here; SFTLAB_TEST_DEVICE=cpu runs these tests on the CPU")
    return count
