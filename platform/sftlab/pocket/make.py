"""What `sftlab pocket` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.pocket.pretrain import EXPOSURE_FILE, Progress, build_facts, pretrain
from sftlab.pocket.spec import PocketRuntime, PocketSpec
from sftlab.pocket.world import exposure_table, world_facts
from sftlab.store.record import is_draft
from sftlab.store.tables import read_table
from sftlab.weights.shards import SINGLE_FILE

if TYPE_CHECKING:
    import pyarrow as pa


def make_world(
    spec: PocketSpec,
    output: Path,
    tables: Mapping[str, pa.Table] | None,
    runtime: PocketRuntime,
    progress: Progress | None = None,
) -> bool:
    """Write OUTPUT/facts and pre-train OUTPUT/model; False where this very world is there already, finished.

    One that was begun is gone on with. Raises UserError where OUTPUT holds another world or something else, and as
    `build_facts` and `pretrain` do.
    """
    facts, model = output / "facts", output / "model"
    # The weights are written last, and whole or not at all.
    if _is_begun(spec, output, tables) and (model / SINGLE_FILE).is_file():
        return False
    build_facts(spec, facts, tables)
    pretrain(spec, facts, model, runtime, progress)
    return True


def _is_begun(spec: PocketSpec, output: Path, tables: Mapping[str, pa.Table] | None) -> bool:
    """Whether OUTPUT holds the facts of this world. Raises UserError for other content: a model would belong to it."""
    path = output / "facts" / EXPOSURE_FILE
    if path.is_file():
        wanted = exposure_table(world_facts(spec, tables), spec.false_facts is not None)
        if not read_table(path, wanted.schema).equals(wanted):
            raise UserError(
                (
                    f"holds another pocket world, whose facts are not those of --seed {spec.seed} and "
                    f"{f'--source {spec.source}' if spec.source else 'no --source'}"
                ),
                place=output,
                advice="give a new folder as --output, or the seed and source of that world.",
            )
        return True
    for folder in (output / "facts", output / "model"):
        found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if left := [name for name in found if not is_draft(Path(name))]:
            raise UserError(
                f"holds {left[0]}, but there is no {path}, so it is no pocket world",
                place=folder,
                advice="give a new folder as --output, or delete that one.",
            )
    return False
