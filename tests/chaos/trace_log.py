"""Reads what `trace/sitecustomize.py` writes: what has begun, what is open, what was computed twice."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
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
    last: dict[tuple[str, str], int] = {}
    for place, line in enumerate(lines):
        if line["event"] != "begin":
            continue
        stage, before = line["stage"], last.get((line["stage"], line["piece"]))
        last[stage, line["piece"]] = place
        if before is not None:
            blow = bisect_right(marks, before)
            if blow < len(marks):
                found[blow][stage] = found[blow].get(stage, 0) + 1
    return found
