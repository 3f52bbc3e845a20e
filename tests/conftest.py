"""Tests run without a hub and without usage reports; quick ones come first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from sftlab.cluster.environment import SHORT_SPIN

settings.register_profile("sftlab", deadline=None)  # a busy machine is late, and not wrong
settings.load_profile("sftlab")

# Two test processes and their engines share the cores; see SHORT_SPIN.
os.environ.setdefault(SHORT_SPIN[0], "100")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Tests that call make get no options of the make that runs them.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(name, None)

# The first study is made while others still start engines; two processes share it. The longest files come next, so that
# no process is idle at the end. The two files of three nodes are apart, as both at once exceed a small machine.
ORDER = (
    "unit/",
    "e2e/test_study.py",
    "e2e/test_jobs.py",
    "e2e/test_sweep.py",
    "e2e/test_object_store.py",
    "e2e/test_nodes.py",
    "ray/test_training_resume.py",
    "e2e/",
    "ray/",
    "gpu/",
    "fuzz/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests first, so that a plain mistake shows before the engines start; then the longest files."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(here).as_posix()
        return next(number for number, start in enumerate(ORDER) if path.startswith(start))

    items.sort(key=place)
