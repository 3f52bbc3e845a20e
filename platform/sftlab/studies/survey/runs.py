"""The runs of a survey, from its groups: every combination once, in the order in which engines change least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from sftlab.errors import UserError
from sftlab.studies.survey.ladders import Rung, treated
from sftlab.studies.survey.spec import LadderSpec, MethodSpec, RunsSpec, SurveySpec
from sftlab.training.spec import SFTSpec

ALL = "all"
Training = tuple[str, tuple[str, ...], int, SFTSpec]
"""What is trained: a base, the members of a set, examples of each, settings."""


@dataclass(frozen=True)
class Run:
    """One fine-tuning run.

    Attributes:
        data: what the training set is called: a set's name, `all`, or `all-NAME` for all but one.
        members: the sets that it consists of.
        size: examples of each of them.
        epochs: after which the model is kept, rising; the last is the end of the run.
        rung: the edit of the tuned model by which this run's method differs from the training that it shares.
    """

    base: str
    data: str
    members: tuple[str, ...]
    size: int
    method: str
    sft: SFTSpec
    epochs: tuple[int, ...]
    rung: Rung | None = field(default=None, hash=False)  # parameters of a strategy have no hash

    @property
    def training(self) -> Training:
        """What is trained; runs that differ in their edits share it."""
        return self.base, self.members, self.size, self.sft

    @property
    def probe(self) -> Run | None:
        """The run whose change says which weights the mask of this run leaves alone; None without a mask.

        Raises UserError where the training set is smaller than the probe.
        """
        mask = self.sft.mask
        if mask is None:
            return None
        if mask.size > self.size:
            raise UserError(
                f"is {mask.size:,}; a probe is part of the training set, and run {self.name} has only "
                f"{self.size:,} examples of a set",
                place="sft.mask.size",
                value=mask.size,
                advice="lower it, or leave that size out.",
            )
        sft = self.sft.model_copy(update={"mask": None})
        method = f"{self.method}-probe"
        return replace(self, size=mask.size, sft=sft, method=method, epochs=(sft.epochs,), rung=None)

    @property
    def name(self) -> str:
        """Readable name, fit for a file."""
        seed = f"-s{self.sft.seed}"
        if not self.sft.seed or self.method.endswith(seed):
            seed = ""
        schedule = "" if self.sft.schedule == "cosine" else f"-{self.sft.schedule}"
        return f"{self.base}-{self.data}-n{self.size}-{self.method}{schedule}{seed}"


def runs_of(survey: SurveySpec) -> list[Run]:
    """The runs of all groups; equal ones once, with the epochs of all, by base in the order of the file."""
    found: dict[tuple[object, ...], Run] = {}
    for group in survey.runs:
        for run in _runs_of_group(survey, group):
            key = (*run.training, repr(run.rung))
            before = found.get(key)
            epochs = run.epochs if before is None else tuple(sorted({*run.epochs, *before.epochs}))
            found[key] = replace(run, epochs=epochs)
    order = {name: place for place, name in enumerate(survey.bases.names)}
    return sorted(found.values(), key=lambda run: order[run.base])  # stable: within a base as in the file


def group_runs(survey: SurveySpec, group: int) -> set[Run]:
    """The runs of one group of the file, counted from 0, without the epochs that they keep."""
    return {replace(run, epochs=()) for run in _runs_of_group(survey, survey.runs[group])}


def _runs_of_group(survey: SurveySpec, group: RunsSpec) -> Iterator[Run]:
    bases = group.bases or survey.bases.names
    sets = _sets_of(survey.data.names, group)
    for base, (name, members), size, method, seed in product(
        bases, sets.items(), group.sizes, group.methods, group.seeds
    ):
        sft, rung = treated(method, _sft_of(survey.sft, group, method, seed))
        row = (
            method.name if seed == group.seeds[0] else f"{method.name}-s{seed}"
        )  # models of two seeds are two rows
        yield Run(base, name, members, size, row, sft, _kept(group, sft.epochs), rung)


def _sets_of(names: tuple[str, ...], group: RunsSpec) -> dict[str, tuple[str, ...]]:
    """The members of each training set of a group."""
    if group.data == "all":
        return {ALL: names}
    if group.data == "leave-one-out":
        return {f"{ALL}-{left}": tuple(name for name in names if name != left) for left in names}
    return {name: (name,) for name in (names if group.data == "each" else group.data)}


def _sft_of(sft: SFTSpec, group: RunsSpec, method: MethodSpec, seed: int) -> SFTSpec:
    changes: dict[str, object] = {
        "epochs": group.epochs,
        "schedule": group.schedule,
        "lora": method.lora,
        "learning_rate": method.learning_rate,
        "batch_size": method.batch_size,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return SFTSpec.model_validate({**sft.model_dump(), "seed": sft.seed + seed, **given})


def _kept(group: RunsSpec, epochs: int) -> tuple[int, ...]:
    if group.keep_epochs == "all":
        return tuple(range(1, epochs + 1))
    kept = () if group.keep_epochs == "last" else group.keep_epochs
    return tuple(sorted({*kept, epochs}))


def is_selected(ladder: LadderSpec, run: Run) -> bool:
    """Whether the models of a run are restored."""
    return all(
        chosen is None or value in chosen
        for chosen, value in (
            (ladder.bases, run.base),
            (ladder.data, run.data),
            (ladder.sizes, run.size),
            (ladder.methods, run.method),
        )
    )
