"""What the runner knows of a study: its stages, and a plan that yields their steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sftlab.execution.cost import Cost
from sftlab.execution.outside import OutsideFiles
from sftlab.store.outside import Found
from sftlab.store.record import Step

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime


@dataclass(frozen=True)
class Stage:
    """One kind of step.

    revision: part of the ids of its steps. A stage whose meaning changes gets the next number: its results, and those
    that are made of them, move to new ids. build: "package.module:function" that builds all missing steps of this stage
    and is called with the study's build; the module is imported when the stage is built. needs_ray: whether it runs in
    a Ray session. starts_engines: the group of the runtime whose engines it starts, if any. reads: the groups of files
    outside the store that it reads, such as "model" for base models. per_cell: whether it has a step for each cell of
    the grid, which a trial of a sweep builds by itself. remains: the files of a result that are kept where
    `runtime.keep` deletes the others, which a later need builds again; empty where results are never deleted.
    """

    name: str
    revision: int
    build: str
    needs_ray: bool = False
    starts_engines: Literal["engine", "evaluation"] | None = None
    reads: tuple[str, ...] = ()
    per_cell: bool = False
    remains: tuple[str, ...] = ()

    def builder(self) -> Callable[[Any], None]:
        """The function that `build` names."""
        module, _, name = self.build.partition(":")
        function: Callable[[Any], None] = getattr(import_module(module), name)
        return function


class StudyPlan(Protocol):
    """The steps of a study in the order in which they are built, and what is to be checked before."""

    @property
    def name(self) -> str:
        """What the study is called."""

    @property
    def stages(self) -> Sequence[Stage]:
        """All stages in the order in which they are built."""

    def steps(self) -> Iterable[tuple[Step, Cost]]:
        """Every step with its cost without engine starts; a step follows those that it is made of."""

    @property
    def outside(self) -> OutsideFiles:
        """The files and folders outside the store that the study names."""

    def check(self, stages: Collection[Stage], runtime: Runtime, say: Callable[[str], None]) -> None:
        """Raises UserError for what cannot be built, before one of these stages is; `say` reports the rest."""


def stages_until(stages: Sequence[Stage], last: str | None) -> Sequence[Stage]:
    """The stages up to the one of this name, inclusive; all if None."""
    if last is None:
        return stages
    names = [stage.name for stage in stages]
    return stages[: names.index(last) + 1]


def files_by_stage(
    stages: Sequence[Stage], groups: Mapping[str, Sequence[Found]]
) -> dict[str, tuple[Found, ...]]:
    """The files that each stage reads: those of the groups that `Stage.reads` names."""
    return {
        stage.name: tuple(found for name in stage.reads for found in groups[name])
        for stage in stages
        if stage.reads
    }
