"""The settings of a process whose reruns give the same bits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sftlab
from sftlab.training.deepspeed import repeat_bits

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def torch_as_before() -> Iterator[None]:
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


@pytest.mark.usefixtures("torch_as_before")
def test_on_a_gpu_cublas_has_a_workspace_of_a_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # is put back after the test
    monkeypatch.delenv(VARIABLE)
    repeat_bits(on_gpu=False)
    assert VARIABLE not in os.environ
    assert (
        torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    )
    repeat_bits(on_gpu=True)
    assert os.environ[VARIABLE] == ":4096:8"
    monkeypatch.setenv(VARIABLE, ":16:8")
    repeat_bits(on_gpu=True)
    assert os.environ[VARIABLE] == ":16:8"


def test_no_process_asks_torch_for_deterministic_algorithms_without_it() -> None:
    """Without the workspace torch would warn once, and sums of matrix products could differ from run to run."""
    asked = re.compile(r"use_deterministic_algorithms\(")
    root = Path(sftlab.__file__).parent
    files = [
        str(path.relative_to(root)) for path in root.rglob("*.py") for _ in asked.findall(path.read_text())
    ]
    assert files == ["training/deepspeed.py"]
