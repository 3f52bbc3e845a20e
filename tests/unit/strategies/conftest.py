"""Strategies that tests register."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sftlab.strategies import (
    registry,
)


@pytest.fixture
def own_names() -> Iterator[None]:
    """Whatever a test registers is forgotten after it."""
    known = dict(registry.KNOWN)
    yield
    registry.KNOWN.clear()
    registry.KNOWN.update(known)
