"""Tests run without a hub and without usage reports; slow ones come last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ORDER = ("unit", "ray", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick folders first, so that a plain mistake shows before the engines start."""
    here = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(here).parts[0]))
