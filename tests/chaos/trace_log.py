"""Reads what `trace/sitecustomize.py` writes: what has begun, what is open, what was computed twice."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class TraceLog:
    """A growing trace; `refresh` reads on."""

    path: Path
    lines: list[dict[str, str]] = field(default_factory=list)
    _offset: int = 0

    def refresh(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.lines += [json.loads(line) for line in whole.splitlines()]

    def begun(self, stage: str) -> int:
        """Different pieces of a stage that have begun."""
        return len({line["piece"] for line in self.lines if line["stage"] == stage})

    def ended(self) -> int:
        """Pieces that have ended, of all stages."""
        return len({(line["stage"], line["piece"]) for line in self.lines if line["event"] == "end"})

    def open(self) -> list[dict[str, str]]:
        """The last begin of every living process that has not ended since."""
        last = {line["pid"]: line for line in self.lines}
        return [
            line for pid, line in last.items() if line["event"] == "begin" and psutil.pid_exists(int(pid))
        ]

    def marks(self) -> int:
        """How far the trace has come, for `rework`."""
        return len(self.lines)


def rework(lines: Sequence[dict[str, str]], marks: Sequence[int]) -> list[dict[str, int]]:
    """For every mark the pieces, by stage, begun anew because of it: it is the first after their last begin."""
    found: list[dict[str, int]] = [{} for _ in marks]
    for stage, before, place in begun_again(lines):
        blow = bisect_right(marks, before)
        if blow < len(marks) and marks[blow] <= place:
            found[blow][stage] = found[blow].get(stage, 0) + 1
    return found


def stragglers(lines: Sequence[dict[str, str]], marks: Sequence[int]) -> list[dict[str, int]]:
    """The pieces, by stage, begun twice with no mark between: before the first mark, and after each one."""
    found: list[dict[str, int]] = [{} for _ in (0, *marks)]
    for stage, before, place in begun_again(lines):
        blow = bisect_right(marks, before)
        if blow == len(marks) or marks[blow] > place:
            found[blow][stage] = found[blow].get(stage, 0) + 1
    return found


def begun_again(lines: Sequence[dict[str, str]]) -> Iterator[tuple[str, int, int]]:
    """For every begin of a piece that had begun before: its stage, the line of the last begin, and its own."""
    last: dict[tuple[str, str], int] = {}
    for place, line in enumerate(lines):
        if line["event"] == "begin":
            piece = line["stage"], line["piece"]
            if piece in last:
                yield line["stage"], last[piece], place
            last[piece] = place
