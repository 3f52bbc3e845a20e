"""The id of a base model's folder: the hash of the files that make up the model."""

from __future__ import annotations

from pathlib import Path

from sftlab.errors import UserError
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.outside import MISSING, Found, Outside, hashed_outside, outside_id
from sftlab.weights.shards import model_files


def model_hash(folder: Path, root: Path) -> str:
    """Content hash of a base model's folder, of large files remembered below `root`; `missing:PATH` without files.

    Raises UserError where its files contradict each other (`weights.shards.layout`).
    """
    return outside_id(hashed_model(folder, FileHashes(root / HASHES))) or ""


def folder_of(model_id: str, root: Path) -> Path | None:
    """Where the base model of a content hash was last seen, if it is still there unchanged; else None."""
    place = FileHashes(root / HASHES).folders.get(model_id)
    folder = None if place is None else Path(place)
    if folder is not None and _is_folder(folder) and _hash_if_sound(folder, root) == model_id:
        return folder
    return None


def _hash_if_sound(folder: Path, root: Path) -> str | None:
    """None for a folder that has changed so that it is no model any more."""
    try:
        return model_hash(folder, root)
    except UserError:
        return None


def hashed_model(folder: Path, hashes: FileHashes) -> Found:
    """A model folder with its content hash, remembered as its place; `missing:PATH` where there is none."""
    found = hashed_outside(folder, model_files, hashes) if folder.is_dir() else f"{MISSING}{folder}"
    if isinstance(found, Outside):
        hashes.saw_folder(found.sha256, folder)
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        return False
