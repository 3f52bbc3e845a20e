"""Checkpoints of a run that has not finished: DeepSpeed's files of all ranks, and a commit mark.

They are in a folder that every worker reaches (a shared mount where the workers are on several nodes, or the mirror
of an object store) and are scratch: read by the run that wrote them, deleted when it is done. DeepSpeed stores them
by pickle; they are loaded as plain values alone (`restricted.py`).

The mark lists size and SHA-256 of every file that rank 0 sees once all ranks have written: all of them in a shared
folder, those of its own machine in a mirror. A checkpoint in which one of them differs counts as never written.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.config.documents import parse_record
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.fingerprint import file_hash
from sftlab.store.mirror import drop, is_hashed, is_sent, mirror_of, pull, push
from sftlab.training.records import History
from sftlab.training.safe_load import load_restricted

MARK = "state.json"
OWNER = "owner"
OWNER_SECONDS = 10.0  # after which a worker asks an object store again whose a run is
_asked: dict[Path, float] = {}


@dataclass(frozen=True)
class Shard:
    """A file of a checkpoint; no hash above `store.mirror.HASH_LIMIT`, as all ranks wait while rank 0 hashes."""

    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class State:
    """What the commit mark of a checkpoint holds; `files` by their path in its folder."""

    step: int
    identity: dict[str, Any]
    history: History
    files: dict[str, Shard]


def call_token() -> str:
    """A name for one call of train_runs."""
    return uuid4().hex


def take_over(root: Path, token: str) -> None:
    """Make a run that of the call `token`, and no earlier one's.

    The workers of a killed driver may live on for some seconds. Drivers alone write this file, so that the call
    that began last has the run, whatever the clocks of the machines say, and two groups never write the
    checkpoints of one run at the same time.
    """
    write_text(root / OWNER, token)
    push(root / OWNER)


def is_owned(root: Path, token: str) -> bool:
    """Whether no later call has taken the run over; there is none while the folder does not show the file."""
    if mirror_of(root) is not None and time.monotonic() - _asked.get(root, -math.inf) > OWNER_SECONDS:
        pull(root / OWNER, again=True)
        _asked[root] = time.monotonic()
    try:
        return (root / OWNER).read_text(encoding="utf-8") == token
    except FileNotFoundError:
        return True


def checkpoint_root(storage_dir: str, run_id: str) -> Path:
    """Folder of one run's checkpoints; the name is readable, and unique by a hash of the run id."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", run_id)[:60]
    return Path(storage_dir) / "checkpoints" / f"{slug}-{sha256(run_id.encode()).hexdigest()[:8]}"


def is_first_on_node() -> bool:
    """Whether this rank moves the checkpoints of its machine to and from an object store."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def fetch_checkpoints(root: Path) -> None:
    """Have the checkpoints of a run on this machine, on all ranks together."""
    import torch.distributed as dist

    if mirror_of(root) is None:
        return
    if is_first_on_node():
        pull(root)
    dist.barrier()


def shards(folder: Path) -> dict[str, Shard]:
    """The files of a checkpoint's folder as they are now, less the mark."""
    with ThreadPoolExecutor() as pool:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
        return {
            path.relative_to(folder).as_posix(): shard
            for path, shard in zip(files, pool.map(read_shard, files), strict=True)
        }


def are_whole(marked: Mapping[str, Shard], found: Mapping[str, Shard]) -> bool:
    """Whether all files that a mark lists are there, by size, and by hash where `hash_up_to_gib` gave both one."""

    def same(name: str, one: Shard) -> bool:
        other = found.get(name)
        if other is None or other.bytes != one.bytes:
            return False
        return one.sha256 is None or other.sha256 is None or one.sha256 == other.sha256

    return all(same(name, shard) for name, shard in marked.items())


def read_shard(file: Path) -> Shard:
    """Size and hash of a file."""
    size = file.stat().st_size
    return Shard(size, file_hash(file) if is_hashed(size) else None)


def latest_checkpoint(root: Path, identity: dict[str, Any]) -> tuple[str, int, History] | None:
    """Tag, steps done and history of the newest committed and undamaged checkpoint of this very run and layout.

    Of a mirror only what the object store has as well: a machine that left the run earlier keeps old ones.
    """
    for mark in sorted(root.glob(f"step-*/{MARK}"), reverse=True):
        if not is_sent(mark):
            continue
        try:
            state = parse_record(State, mark.read_bytes(), str(mark), "delete it.")
        except (
            UserError
        ):  # damaged, so as good as never written: the steps since the one before are done again
            continue
        if state.identity == identity and are_whole(state.files, shards(mark.parent)):
            return mark.parent.name, state.step, state.history
    return None


def save_checkpoint(engine: Any, root: Path, step: int, history: History, identity: dict[str, Any]) -> None:
    """Save after `step` steps, on all ranks together; older checkpoints go once this one is committed."""
    import torch.distributed as dist

    tag = f"step-{step:08d}"
    if dist.get_rank() == 0:
        drop(root / tag)
        root.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    frozen = any(not p.requires_grad for p in engine.module.parameters())
    engine.save_checkpoint(str(root), tag=tag, save_latest=False, exclude_frozen_parameters=frozen)
    dist.barrier()
    if mirror_of(root) is not None:
        if is_first_on_node():
            push(root / tag)
        dist.barrier()
    if dist.get_rank() == 0:
        state = State(step, identity, history, shards(root / tag))
        write_text(root / tag / MARK, json.dumps(asdict(state)))
        push(root / tag / MARK)
    if dist.get_rank() == 0 or (mirror_of(root) is not None and is_first_on_node()):
        for old in root.glob("step-*"):
            if old.name != tag:
                drop(old)


def load_checkpoint(engine: Any, root: Path, tag: str) -> None:
    """Bring a fresh engine to the state of a committed checkpoint, on all ranks together."""
    frozen = any(not p.requires_grad for p in engine.module.parameters())
    load_restricted(engine)
    path, _ = engine.load_checkpoint(
        str(root), tag=tag, load_module_strict=not frozen, load_lr_scheduler_states=False
    )
    assert path is not None, f"{root / tag}: DeepSpeed found no checkpoint there"


def drop_checkpoints(root: Path) -> None:
    """Delete a finished run's checkpoints."""
    drop(root)


def drop_copies(root: Path) -> None:
    """Delete what other machines' mirrors hold of a finished run; on all ranks together, once it is committed."""
    import torch.distributed as dist

    if mirror_of(root) is None:
        return
    dist.barrier()
    if is_first_on_node():
        shutil.rmtree(root, ignore_errors=True)
