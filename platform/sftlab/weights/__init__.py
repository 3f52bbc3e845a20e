"""Weights of models in safetensors: streamed reading and writing, the change by fine-tuning, restoration, packing.

Memory does not depend on the size of the models. Folders are Hugging Face model folders; weights keep their dtype
(bfloat16, float16 or float32), and changes are computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.weights.change_profile import ChangeProfile, profile, read_profile
    from sftlab.weights.edits import TensorEdit
    from sftlab.weights.ladder import restore
    from sftlab.weights.packing import pack, unpack
    from sftlab.weights.restoration import write_restored
    from sftlab.weights.shards import Checkpoint

__all__ = [
    "ChangeProfile",
    "Checkpoint",
    "TensorEdit",
    "pack",
    "profile",
    "read_profile",
    "restore",
    "unpack",
    "write_restored",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "change_profile": ["ChangeProfile", "profile", "read_profile"],
        "edits": ["TensorEdit"],
        "ladder": ["restore"],
        "packing": ["pack", "unpack"],
        "restoration": ["write_restored"],
        "shards": ["Checkpoint"],
    },
)
