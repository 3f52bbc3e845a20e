"""Why an engine does not start: a model that it refuses, or a machine that fails."""

from __future__ import annotations

from sftlab.cluster.out_of_memory import is_out_of_memory
from sftlab.inference.swap import CODE_ERRORS

MODEL_ERRORS = (*CODE_ERRORS, ImportError)  # of the code that reads a model
# What plain RuntimeErrors of devices, and of processes that an engine has started, say.
_MACHINE = ("cuda", "cublas", "cudnn", "nccl", "gloo", "nvidia", "initialization failed", "died")
SHOWN = 300  # characters of a reason


def reason_of(error: BaseException) -> str | None:
    """What an engine's code has against a model, in one line; None for an error of the machine.

    Errors of the machine are: memory, disk and network (OSError with a number), devices, and all that have a
    class of another library.
    """
    if is_out_of_memory(error):
        return None
    text = " ".join(str(error).split())
    of_model = isinstance(error, MODEL_ERRORS) or (isinstance(error, OSError) and error.errno is None)
    if type(error) is RuntimeError:
        of_model = not any(word in text.lower() for word in _MACHINE)
    if not of_model:
        return None
    return f"{type(error).__name__}: {text if len(text) <= SHOWN else f'{text[:SHOWN]}...'}"
