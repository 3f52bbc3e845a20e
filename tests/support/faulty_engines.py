"""Engines without a model that fail in one way each; a folder keeps how often, over the deaths of their processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.inference.engine import Completion, Prompt, Sampling
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.watchdog import process_watchdog


class Letters:
    """One token a character."""

    bos_token_id = None

    def __call__(self, texts: Sequence[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


class Steady:
    """Completes every prompt with the letter a."""

    max_model_len = 10_000

    def __init__(self, notes: Path, runtime: EngineRuntime) -> None:
        self.tokenizer: Any = Letters()
        self.notes = notes
        self.watched = process_watchdog(runtime.timeout_seconds)
        with self.watched:
            self.note("start")

    def note(self, what: str) -> int:
        """Write down that something happens; returns how often it has."""
        with (self.notes / what).open("a") as file:
            file.write("x")
        return (self.notes / what).stat().st_size

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        with self.watched:
            self.note("batch")
            self.fail(prompts)
            return [[Completion("a", 1)] * sampling.samples for _ in prompts]

    def fail(self, prompts: Sequence[Prompt]) -> None:
        del prompts


class Hanging(Steady):
    """Hangs once, in its third batch."""

    def fail(self, prompts: Sequence[Prompt]) -> None:
        del prompts
        if self.note("calls") == 3:
            time.sleep(3600)


class Dying(Steady):
    """Dies in every batch."""

    def fail(self, prompts: Sequence[Prompt]) -> None:
        del prompts
        os._exit(1)


class Small(Steady):
    """Has memory for three prompts at a time, and none for those that name person 4."""

    def fail(self, prompts: Sequence[Prompt]) -> None:
        import torch

        marked = any("Person 4 " in "".join(map(chr, prompt.token_ids)) for prompt in prompts)
        if len(prompts) > 3 or marked:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@dataclass(frozen=True)
class Factory:
    """Makes engines of one kind that share their notes."""

    kind: type[Steady]
    notes: Path

    def __call__(self, model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> Any:
        del model_dir, spec
        return self.kind(self.notes, runtime)


@dataclass(frozen=True)
class StoppedFactory(Factory):
    """Stops the first actor that gets it, before anything of the actor's own runs."""

    driver: int

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() == self.driver:
            return
        with (self.notes / "given").open("a") as file:
            file.write("x")
        if (self.notes / "given").stat().st_size == 1:
            (self.notes / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
