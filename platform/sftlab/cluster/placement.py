"""Where in a Ray cluster an actor is put."""

from __future__ import annotations

from typing import Any


def same_node() -> Any:
    """Ray's scheduling strategy for the calling process's own node, and no other.

    For actors that coordinate: on another node they could be lost while their driver lives on.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
