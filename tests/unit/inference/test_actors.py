"""What became of a call to an engine's actor, by Ray's errors."""

from __future__ import annotations

import traceback
from types import SimpleNamespace

import pytest

from sftlab.errors import UserError
from sftlab.inference.actors import EngineLostError, as_raised


def killed_for_memory() -> str:
    """The trace of Ray's failure to read why its memory monitor ended an actor."""
    from ray._private.serialization import SerializationContext
    from ray.core.generated.common_pb2 import RayErrorInfo

    without_reason = SimpleNamespace(_deserialize_error_info=lambda *_: RayErrorInfo())
    try:
        SerializationContext._deserialize_actor_died_error(without_reason, b"some", [])
    except AssertionError:
        return traceback.format_exc()
    raise AssertionError("this Ray reads it: the workaround may go")


def test_an_engine_that_the_memory_monitor_ended_may_be_asked_again() -> None:
    import ray.exceptions as lost

    with pytest.raises(EngineLostError, match="want of memory"), as_raised():
        raise lost.RaySystemError(AssertionError(), killed_for_memory())


def test_other_errors_of_the_system_pass_as_they_are_and_a_dead_engine_is_reported() -> None:
    import ray.exceptions as lost

    with pytest.raises(lost.RaySystemError, match="something else"), as_raised():
        raise lost.RaySystemError(ValueError("something else"))
    with pytest.raises(UserError, match=r"engine\.max_restarts"), as_raised():
        raise lost.ActorDiedError()
