"""Instruction data: formats, templates, trained tokens, draws and mixtures, benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.datasets.benchmark_file import BenchmarkFileSpec, read_benchmark
    from sftlab.datasets.source import open_data
    from sftlab.datasets.spec import DataFileSpec

__all__ = ["BenchmarkFileSpec", "DataFileSpec", "open_data", "read_benchmark"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "benchmark_file": ["BenchmarkFileSpec", "read_benchmark"],
        "source": ["open_data"],
        "spec": ["DataFileSpec"],
    },
)
