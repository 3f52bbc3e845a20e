"""Loading DeepSpeed's checkpoints without running what they may contain.

They are pickles in a store that others may write to. torch's restricted unpickler makes tensors and plain
values alone, and refuses every other name; the few of DeepSpeed's that its checkpoints hold are listed here.
"""

from __future__ import annotations

import errno
import pickle
from typing import Any

from sftlab.errors import UserError


def known_names() -> list[Any]:
    """What a DeepSpeed checkpoint may name in addition to tensors and plain values: classes that hold numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


class _ShortError(pickle.UnpicklingError):
    """What torch's unpickler raises, with a text of bounded length.

    torch searches the text with patterns that take quadratic time, and a checkpoint may hold a name of any length.
    """

    def __str__(self) -> str:
        return super().__str__()[:500]


def load_plain(path: str, map_location: Any = None) -> Any:
    """What torch.save wrote to `path`.

    Raises UserError where the file names anything that is not listed, or cannot be read for whatever reason. What the
    file system refuses (OSError), and memory of a GPU that runs out, passes: it says nothing of the file.
    """
    import torch
    from torch import _weights_only_unpickler as unpickler

    unpickler.UnpicklingError = _ShortError  # type: ignore[attr-defined]  # imported there
    try:
        with torch.serialization.safe_globals(known_names()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "it is no checkpoint")
        raise UserError(
            f"is refused, as it holds more than numbers ({reason.strip()})",
            place=path,
            advice=(
                "nothing of it was run. Delete the checkpoint's folder; the run then starts again. Find out who "
                "wrote it."
            ),
        ) from error
    except Exception as error:  # whatever else torch stumbles over in bytes that it has not written
        if (
            isinstance(error, OSError) and error.errno != errno.EINVAL
        ):  # that one: a place before the file's begin
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"is a damaged checkpoint ({reason})",
            place=path,
            advice="delete its folder, and run again; the run then starts again.",
        ) from error


def load_restricted(engine: Any) -> None:
    """Let a DeepSpeed engine read its checkpoints by `load_plain` alone."""
    engine.checkpoint_engine.load = load_plain
