"""Sweeps over the tiny study, for tests."""

from __future__ import annotations

from pathlib import Path

import yaml

from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.load import load_sweep

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
AXES = {"data": [0, 4], "size": [2, 4], "seed": [0, 1], "strategy": ["restore", "wise-ft"]}


def sweep_of(tmp_path: Path, **fields: object) -> Sweep:
    """A sweep over the tiny study, with these fields in its file."""
    document = {"name": "s", "study": str(CONFIGS / "tiny.yaml"), **fields}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document))
    spec, study = load_sweep(path)
    store = Store(tmp_path / "store")
    return Sweep(spec, study, resolve(study, store.root), store, Runtime(), SilentProgress())
