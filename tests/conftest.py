"""Tests run without a hub and without usage reports; slow ones come last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("sftlab", deadline=None)  # a busy machine is late, and not wrong
settings.load_profile("sftlab")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ORDER = ("unit", "fuzz", "ray", "gpu", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick folders first, so that a plain mistake shows before the engines start."""
    here = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(here).parts[0]))
