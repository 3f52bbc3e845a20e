"""Nested configuration as flat rows of names and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Leaves of nested mappings as ('a.b', value as JSON text); strings without their quotes."""
    leaves: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            leaves += flat(value, f"{name}.")
        else:
            leaves.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return leaves
