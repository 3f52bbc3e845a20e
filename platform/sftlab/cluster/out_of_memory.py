"""Distinguishes exceptions that mean "out of memory" from all others, without importing torch."""

from __future__ import annotations

# What torch, CUDA, cuBLAS and NCCL write where their exception is a plain RuntimeError, or comes from another process.
_TEXTS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the GPU or of the machine, is used up."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    text = str(error).lower()
    return named or (isinstance(error, RuntimeError) and any(part.lower() in text for part in _TEXTS))
