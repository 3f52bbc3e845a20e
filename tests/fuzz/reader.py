"""A reader of what comes from outside, as a function of bytes, with valid inputs to damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import mutated

Make = Callable[[Random], bytes]


@dataclass(frozen=True)
class Reader:
    """`read` takes the input and an empty folder; `seeds` are valid; `documents` makes odd but well-formed inputs."""

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    documents: Make

    def input(self, seed: str) -> bytes:
        """The input of a seed: a damaged valid one, an altered document, or both. Equal seeds, equal inputs."""
        draw = Random(seed)
        kind = draw.random()
        if kind < 0.4:
            return mutated(draw.choice(self.seeds), self.seeds, draw)
        try:
            document = self.documents(draw)
        except Exception:  # whatever a writer of YAML, JSON or parquet says of a value that it cannot write
            return mutated(draw.choice(self.seeds), self.seeds, draw)
        return document if kind < 0.85 else mutated(document, self.seeds, draw)


class Later(Sequence[bytes]):
    """Inputs that are made when they are first asked for, as torch takes seconds to import."""

    def __init__(self, make: Callable[[], Sequence[bytes]], count: int = 1) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: Any) -> Any:
        return self.make()[at]
