"""Tuned models whose weights were deleted (`runtime.keep: recipe`), trained again from the records of the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sftlab.config.overrides import validated
from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import file_hash
from sftlab.store.record import FOLDER_DIGITS, RELEASED, Record
from sftlab.studies.knowledge.build import MODEL
from sftlab.studies.knowledge.materialize import Recipe, record_of
from sftlab.studies.knowledge.stages.change import FILE as CHANGE_FILE
from sftlab.studies.knowledge.stages.training_sets import FILE as TRAINING_FILE
from sftlab.training.records import ProbeMask, SFTRun
from sftlab.training.spec import SFTSpec
from sftlab.weights.change_profile import read_profile
from sftlab.weights.cut import percent_label

Say = Callable[[str], None]
Train = Callable[[SFTRun], None]


@contextmanager
def with_weights(store: Store, recipe: Recipe, runtime: Runtime, say: Say) -> Iterator[Recipe]:
    """The recipe with the weights of its tuned model: those of the store, or trained again in a temporary folder.

    The same machine with the same runtime gives the same bits; `say` hears where they differ from those that were
    deleted. Raises UserError where a part that the training needs is no longer in the store.
    """
    tuned = record_of(store, "tuned", recipe.evaluation.inputs["tuned"], recipe.evaluation.slug)
    if not tuned.released:
        yield recipe
        return
    with TemporaryDirectory(dir=store.root, prefix=".trained-") as place:
        again = TrainedAgain(store, recipe.base, Path(place), trainer(runtime, Path(place), say), say)
        yield replace(recipe, tuned=again.folder(tuned))


@dataclass(frozen=True)
class TrainedAgain:
    """Trains deleted models from their records; a masked one after its probe. `train` runs one training."""

    store: Store
    base: Path
    place: Path
    train: Train
    say: Say

    def folder(self, tuned: Record) -> Path:
        """The folder of a tuned model: that of the store where its weights are there."""
        there = self.store.path(tuned.step)
        if not tuned.released:
            return there / MODEL
        run = self._run(tuned)
        self.say(f"{tuned.slug}: its weights were deleted (runtime.keep: recipe); training again")
        self.train(run)
        deleted = json.loads((there / RELEASED).read_text())
        if wrong := changed_file(Path(run.output_dir).parent, deleted):
            self.say(
                f"{tuned.slug}: {wrong} has other bytes than before it was deleted: another machine or number of "
                "training workers rounds sums otherwise"
            )
        return Path(run.output_dir)

    def _run(self, tuned: Record) -> SFTRun:
        spec = validated(SFTSpec, tuned.spec, f"settings of {tuned.slug}")
        drawn = record_of(self.store, "training-set", tuned.inputs["training_set"], tuned.slug)
        mask = None
        if spec.mask is not None:
            probe = record_of(self.store, "tuned", tuned.inputs["probe"], tuned.slug)
            change = record_of(self.store, "change", tuned.inputs["probe_change"], tuned.slug)
            cuts = read_profile(self.store.path(change.step) / CHANGE_FILE).cuts
            mask = ProbeMask(str(self.folder(probe)), cuts[percent_label(spec.mask.percent)])
        return SFTRun(
            run_id=f"{tuned.slug}-{tuned.id[:FOLDER_DIGITS]}",
            base_model=str(self.base),
            train_file=str(self.store.path(drawn.step) / TRAINING_FILE),
            output_dir=str(self.place / tuned.slug / MODEL),
            spec=spec,
            mask=mask,
        )


def changed_file(folder: Path, deleted: dict[str, dict[str, object]]) -> str | None:
    """The first file of the weights whose bytes are not those that were deleted; None where all are alike.

    deleted: bytes and sha256 by path, of files that a packed model may lack now.
    """
    weights = [name for name in deleted if name.endswith(".safetensors") and (folder / name).exists()]
    return next((name for name in weights if file_hash(folder / name) != deleted[name]["sha256"]), None)


def trainer(runtime: Runtime, scratch: Path, say: Say) -> Train:
    """What trains one model in a Ray session of its runtime."""

    def train(run: SFTRun) -> None:
        from sftlab.cluster.environment import check_environment
        from sftlab.cluster.session import ray_cluster
        from sftlab.training.sft import train_runs

        check_environment()
        with ray_cluster(runtime.training_bundles, runtime.gpu_wait_minutes, runtime.logical_cpus, say):
            if not train_runs([run], runtime.training, storage_dir=str(scratch / "ray-train")):
                raise UserError("was not trained", place=run.run_id, advice="look at the lines above.")

    return train
