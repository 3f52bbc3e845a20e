"""Loading DeepSpeed's checkpoints without running what may stand in them.

They are pickles, and lie in a store that others may write to. torch's restricted unpickler makes tensors and plain
values alone, and refuses every other name; the few of DeepSpeed's that its checkpoints hold are listed here.
"""

from __future__ import annotations

import pickle
from typing import Any

from sftlab.errors import UserError


def known_names() -> list[Any]:
    """What a checkpoint of DeepSpeed may name beside tensors and plain values: classes that hold numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def load_plain(path: str, map_location: Any = None) -> Any:
    """What torch.save wrote to `path`. Raises UserError where the file names anything that is not listed."""
    import torch

    try:
        with torch.serialization.safe_globals(known_names()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "it is no checkpoint")
        raise UserError(
            f"{path}: is refused, as it holds more than numbers ({reason.strip()}). Nothing of it was run. Delete "
            "the checkpoint's folder; the run then starts again. Find out who wrote it."
        ) from error


def load_restricted(engine: Any) -> None:
    """Let a DeepSpeed engine read its checkpoints by `load_plain` alone."""
    engine.checkpoint_engine.load = load_plain
