"""Replaces the folder of a tuned model by its packed form, which is read as if it were the folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sftlab.weights.adapter import is_adapter
from sftlab.weights.delta_folder import is_packed
from sftlab.weights.packing import pack


def pack_in_place(base: Path, folder: Path, carried: Sequence[str] = ()) -> None:
    """Pack a model folder and give the result its name; a packed one and an adapter are left as they are.

    carried: further files of the folder that travel. The packed folder is read back before the original is deleted.
    A call that is killed leaves the original, or neither, and hidden siblings that the next call deletes.
    Raises UserError as `pack`.
    """
    packed, old = (folder.with_name(f".{folder.name}.{part}") for part in ("packed", "whole"))
    for left in (packed, old):
        shutil.rmtree(left, ignore_errors=True)
    if is_packed(folder) or is_adapter(folder):
        return
    pack(base, folder, packed)
    for name in carried:
        shutil.copyfile(folder / name, packed / name)
    folder.rename(old)
    packed.rename(folder)
    shutil.rmtree(old)
