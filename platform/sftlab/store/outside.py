"""Files and folders outside the store, with the hashes of their content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.store.fingerprint import rows_hash
from sftlab.store.hashes import FileHashes, Hashed, quick_stamp, steady_hash

MISSING = "missing:"  # begins what is in the place of a content hash where there is no file


@dataclass
class Outside:
    """A file, or the files of a folder as `listing` finds them, with their content hash when the study was planned."""

    path: Path
    listing: Callable[[Path], list[Path]]
    sha256: str
    files: tuple[Hashed, ...]

    def is_unchanged(self) -> bool:
        """Whether the content is still the planned one; it is read again only where a stamp is another."""
        try:
            found = self.listing(self.path)
            same = found == [file.path for file in self.files]
            if same and all(quick_stamp(file.path) == file.stamp for file in self.files):
                return True
            known = {file.path: file for file in self.files}
            files = tuple(
                known[path] if path in known and quick_stamp(path) == known[path].stamp else steady_hash(path)
                for path in found
            )
        except (FileNotFoundError, UserError):  # gone, or a model no more: its files contradict each other
            return False
        if not files or content_hash(self.path, files) != self.sha256:
            return False
        self.files = files
        return True


Found = Outside | str
"""A file or folder with its content hash, or the text `missing:PATH`."""


def content_hash(path: Path, files: Sequence[Hashed]) -> str:
    """The hash that identifies a file, or a folder by the relative paths and hashes of its files."""
    if [file.path for file in files] == [path]:
        return files[0].sha256
    return rows_hash((file.path.relative_to(path).as_posix(), file.sha256) for file in files)


def hashed_outside(path: Path, listing: Callable[[Path], list[Path]], hashes: FileHashes) -> Found:
    """A file or folder with its content hash; `missing:PATH` where there is nothing."""
    files = tuple(hashes.of(listing(path)))
    return Outside(path, listing, content_hash(path, files), files) if files else f"{MISSING}{path}"


def outside_id(found: Found | None) -> str | None:
    """The content hash, or the text that says what is missing."""
    return found.sha256 if isinstance(found, Outside) else found
