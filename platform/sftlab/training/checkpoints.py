"""Checkpoints of a run that has not finished: DeepSpeed's files of all ranks, and a commit mark.

They lie in a folder that every worker reaches (a shared mount where the workers are on several nodes) and
are scratch: read by the run that wrote them, deleted when it is done. DeepSpeed stores them by pickle.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.store.artifact import write_text
from sftlab.training.records import History

MARK = "state.json"
OWNER = "owner"


def call_token() -> str:
    """A name for one call of train_runs; a later call's name sorts after an earlier one's."""
    return f"{time.time_ns():020d}-{uuid4().hex[:8]}"


def claim(root: Path, token: str) -> bool:
    """Take a run for the call `token`, unless a later call has it.

    The workers of a killed driver may live on for some seconds. The latest call wins, so that two groups
    never write the checkpoints of one run at the same time.
    """
    root.mkdir(parents=True, exist_ok=True)
    if owner(root) > token:
        return False
    write_text(root / OWNER, token)
    return True


def owner(root: Path) -> str:
    """The call that trains this run now; empty where none does."""
    try:
        return (root / OWNER).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def checkpoint_root(storage_dir: str, run_id: str) -> Path:
    """Folder of one run's checkpoints; the name is readable, and unique by a hash of the run id."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", run_id)[:60]
    return Path(storage_dir) / "checkpoints" / f"{slug}-{sha256(run_id.encode()).hexdigest()[:8]}"


def latest_checkpoint(root: Path, identity: dict[str, Any]) -> tuple[str, int, History] | None:
    """Tag, steps done and history of the newest committed checkpoint of this very run and layout."""
    for mark in sorted(root.glob(f"step-*/{MARK}"), reverse=True):
        state = json.loads(mark.read_text(encoding="utf-8"))
        if state["identity"] == identity:
            return mark.parent.name, state["step"], History(**state["history"])
    return None


def save_checkpoint(engine: Any, root: Path, step: int, history: History, identity: dict[str, Any]) -> None:
    """Save after `step` steps, on all ranks together; older checkpoints go once this one is committed."""
    import torch.distributed as dist

    tag = f"step-{step:08d}"
    if dist.get_rank() == 0:
        shutil.rmtree(root / tag, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    frozen = any(not p.requires_grad for p in engine.module.parameters())
    engine.save_checkpoint(str(root), tag=tag, save_latest=False, exclude_frozen_parameters=frozen)
    dist.barrier()
    if dist.get_rank() == 0:
        state = {"step": step, "identity": identity, "history": asdict(history)}
        write_text(root / tag / MARK, json.dumps(state))
        for old in root.glob("step-*"):
            if old.name != tag:
                shutil.rmtree(old)


def load_checkpoint(engine: Any, root: Path, tag: str) -> None:
    """Bring a fresh engine to the state of a committed checkpoint, on all ranks together."""
    frozen = any(not p.requires_grad for p in engine.module.parameters())
    path, _ = engine.load_checkpoint(
        str(root), tag=tag, load_module_strict=not frozen, load_lr_scheduler_states=False
    )
    assert path is not None, f"{root / tag}: DeepSpeed found no checkpoint there"


def drop_checkpoints(root: Path) -> None:
    """Delete a finished run's checkpoints."""
    if root.is_dir():
        shutil.rmtree(root)
