"""Python imports this by itself in every process whose PYTHONPATH has this folder: the chaos runner's eyes.

Where CHAOS_TRACE names a file, a line is added to it when a piece of work begins and when it ends, so that the runner
knows what is open and counts what is computed twice. Nothing in the package knows of it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

TRACE = os.environ.get("CHAOS_TRACE")
AHEAD = 36 * 3600  # seconds by which the clocks of node 2 differ


def note(event: str, stage: str, piece: str) -> None:
    """One line; small appends by several processes do not mix."""
    told = {"event": event, "stage": stage, "piece": piece, "pid": os.getpid(), "at": time.time()}
    line = json.dumps({**told, "node": os.environ.get("SFTLAB_TEST_NODE", "")})
    place = os.open(str(TRACE), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(place, f"{line}\n".encode())
    finally:
        os.close(place)


def traced(
    stage: str, name_of: Callable[..., str | None], function: Callable[..., Any]
) -> Callable[..., Any]:
    """The function, noted at its begin and end where `name_of` its arguments is a name."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        piece = name_of(*arguments, **named)
        if piece is None:
            return function(*arguments, **named)
        note("begin", stage, piece)
        value = function(*arguments, **named)
        note("end", stage, piece)
        return value

    return wrapper


def short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def step_of(first: bool) -> Callable[..., str | None]:
    """Name of a training step on rank 0, or on the others."""

    def name_of(training: Any, me: Any, step: int) -> str | None:
        return f"{training.run.run_id} step {step:05d}" if (me.rank == 0) == first else None

    return name_of


def named(name: str) -> Callable[..., str]:
    return lambda *_, **__: name


# Module, attribute (of a class after a dot), stage, and the name of the piece from the arguments.
PIECES: list[tuple[str, str, str, Callable[..., str | None]]] = [
    ("sftlab.pocket.pretrain", "save_checkpoint", "model", lambda *given: f"{given[-1]:05d}"),
    (
        "sftlab.measurements.scoring",
        "score_block",
        "mastery",
        lambda facts, *_, **__: str(facts["fact_id"][0]),
    ),
    ("sftlab.training.loop", "train_step", "tuned", step_of(first=True)),
    ("sftlab.training.loop", "train_step", "other ranks", step_of(first=False)),
    ("sftlab.studies.knowledge.stages.change", "build_change", "change", lambda *given: given[-1].name),
    (
        "sftlab.inference.worker",
        "EngineWorker.measure",
        "evaluation",
        # The comparison measures the base model alone, and once in a session.
        lambda *given, **__: None if type(given[2][0]).__name__.startswith("Base") else short(given[1]),
    ),
    ("sftlab.studies.knowledge.stages.results", "build_results", "results", named("results")),
    ("sftlab.studies.knowledge.stages.best", "build_best", "best", named("best")),
    ("sftlab.studies.knowledge.stages.report", "build_report", "report", named("report")),
]


def put_in(module: ModuleType) -> None:
    for name, attribute, stage, name_of in PIECES:
        if name == module.__name__:
            owner_name, _, leaf = attribute.rpartition(".")
            owner = getattr(module, owner_name) if owner_name else module
            setattr(owner, leaf, traced(stage, name_of, getattr(owner, leaf)))


class Finder(importlib.abc.MetaPathFinder):
    """Lets a module load as usual, then wraps what is traced in it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name not in {entry[0] for entry in PIECES}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            put_in(module)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


def set_clock(seconds: int) -> None:
    """Let this process's clock, the one of the calendar, go ahead by so much."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + seconds * 10**9


if TRACE:
    sys.meta_path.insert(0, Finder())
    if os.environ.get("SFTLAB_TEST_NODE", "").endswith("-2"):
        set_clock(AHEAD)
