"""What `sftlab change` and `sftlab restore` do."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Unpack

from sftlab.errors import UserError
from sftlab.files import claimed, readable_write_errors
from sftlab.weights.change_profile import ChangeProfile, profile
from sftlab.weights.companions import report_gaps, travelling
from sftlab.weights.cut import CONCENTRATION_PERCENTS, SelectionKeys, percent_labels
from sftlab.weights.edits import Restoration
from sftlab.weights.restoration import restored_bytes, write_restored
from sftlab.weights.stream import Report
from sftlab.weights.writer import DEFAULT_SHARD_BYTES, PARTIAL, check_space

CHANGE_FILE = "change.json"
_OURS = re.compile(r"restored-\d+(\.\d+)?")
_UNFINISHED = re.compile(rf"\.(restored-|{CHANGE_FILE}).*{re.escape(PARTIAL)}")

Folder = str | PathLike[str]


def change(
    base: Folder,
    tuned: Folder,
    output: Folder,
    percents: str | Sequence[str | int | float] = CONCENTRATION_PERCENTS,
    *,
    progress: Report | None = None,
    **selection: Unpack[SelectionKeys],
) -> ChangeProfile:
    """Measures how the weights changed and writes OUTPUT/change.json (`ChangeProfile.to_json`), with the controls.

    selection: as of `profile`; its seed is also that of the shuffled updates that the change is compared with.
    Raises UserError as `profile` does, and for an OUTPUT with other content than an earlier change.json.
    """
    base, tuned, output = expanded(base), expanded(tuned), expanded(output)
    _refuse_file(output)
    with claimed(output):
        _prepare_output(output, ())
        seed = selection.get("seed", 0)
        found = profile(base, tuned, percents, progress=progress, controls_seed=seed, **selection)
        _write_change(output, found)
    return found


def restore(
    base: Folder,
    tuned: Folder,
    percents: str | Sequence[str | int | float],
    output: Folder,
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Report | None = None,
    **selection: Unpack[SelectionKeys],
) -> ChangeProfile:
    """Writes OUTPUT/restored-<percent> for every percentage, and OUTPUT/change.json.

    selection: as of `profile`. shard_bytes: the largest shard of a written model.
    Raises UserError as `profile` and `write_restored` do, for a disk without room for all models (before
    any work), for an OUTPUT with other content than an earlier result or with one of another percentage, and for
    a model that it would overwrite. change.json is written last.
    """
    base, tuned, output = expanded(base), expanded(tuned), expanded(output)
    labels = percent_labels(percents)
    _refuse_overwriting(base, tuned, output, labels)
    to_write = restored_bytes(base, tuned, len(labels))
    report_gaps(travelling(base, tuned), tuned)
    _refuse_file(output)
    check_space(output, to_write.written)

    def searching(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total + to_write.total)
        found_bytes[0] = total

    def writing(done: int, _total: int) -> None:
        if progress is not None:
            progress(found_bytes[0] + done, found_bytes[0] + to_write.total)

    found_bytes = [0]
    with claimed(output):
        _prepare_output(output, labels)
        found = profile(base, tuned, labels, progress=searching, **selection)
        edits = {label: Restoration(cut) for label, cut in found.cuts.items()}
        write_restored(base, tuned, edits, output, shard_bytes, writing)
        _write_change(output, found)
    return found


def _refuse_overwriting(base: Folder, tuned: Folder, output: Folder, labels: Sequence[str]) -> None:
    written = {(Path(output) / f"restored-{label}").resolve() for label in labels}
    for option, model in (("--base", base), ("--tuned", tuned)):
        if Path(model).resolve() in written:
            raise UserError(
                "would be overwritten", place=f"{option} {model}", advice="give another --output."
            )


def expanded(folder: Folder) -> Path:
    """The folder with `~` as the user's home; shells leave it where it follows an equals sign."""
    return Path(os.path.expanduser(folder))  # noqa: PTH111 (leaves an unknown user's home as it is)


def _refuse_file(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError("is a file", place=output, advice="--output needs a new or empty folder.")


def _prepare_output(folder: Path, labels: Sequence[str]) -> None:
    """Removes unfinished pieces of an OUTPUT. Raises UserError if it holds anything but an earlier result
    that is replaced whole: a restored model of none of `labels` would be next to a change.json of other settings.
    """
    replaced = {CHANGE_FILE, *(f"restored-{label}" for label in labels)}
    for entry in sorted(folder.iterdir()):
        if _UNFINISHED.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        elif _OURS.fullmatch(entry.name) and entry.name not in replaced:
            raise UserError(
                f"holds {entry.name} of an earlier call, which {CHANGE_FILE} would no longer describe",
                place=folder,
                advice="delete it or give a new folder.",
            )
        elif entry.name not in replaced:
            raise UserError(
                f"holds {entry.name}, which is no result of this command",
                place=folder,
                advice="give a new folder.",
            )


def _write_change(folder: Path, found: ChangeProfile) -> None:
    text = json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n"
    with readable_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{CHANGE_FILE}.{token_hex(4)}{PARTIAL}"
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(folder / CHANGE_FILE)
        finally:
            unfinished.unlink(missing_ok=True)
