"""Masks found from probe runs: what a plan adds for them, and in which order the tuned stage builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sftlab.execution.progress import Bar
from sftlab.execution.run import run_study
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.tuned import build_tuned, probe_mask
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.spec import TrainingRuntime
from tests.support.refusals import refused
from tests.support.weights_models import save_model, save_tuned, stored

MASK = {"percent": 50, "size": 2}
SOURCES = Sources(
    {"source": "f"}, "m", dict.fromkeys(("train", "dev", "dev_ood", "test", "test_ood"), 10), 1000
)


def plan_of(model: Path, mask: dict[str, object] | None, **grid: object) -> Plan:
    spec = StudySpec.model_validate(
        {
            "name": "t",
            "facts": {"source": "facts.jsonl"},
            "model": {"path": str(model)},
            "engine": {"dtype": "float32"},
            "training_sets": {"buckets": [0], "sizes": [2, 4], "seeds": [0]} | grid,
            "sft": {"learning_rate": 1e-3, "mask": mask},
            "restore": {"percents": [0, 50]},
        }
    )
    return Plan(spec, SOURCES)


def test_a_plan_with_a_mask_has_a_probe_that_is_a_cell_of_the_study_without(tmp_path: Path) -> None:
    plain, masked = plan_of(tmp_path, None), plan_of(tmp_path, MASK)
    (probe,) = masked.probes  # shared by both sizes
    assert [cell.probe for cell in masked.cells] == [probe, probe]
    small, large = plain.cells
    assert probe.tuned == small.tuned and probe.change.id == small.change.id
    assert probe.training_set == small.training_set
    assert not plain.probes
    assert [cell.training_set for cell in masked.cells] == [small.training_set, large.training_set]
    assert not {cell.tuned.id for cell in masked.cells} & {small.tuned.id, large.tuned.id}
    assert masked.cells[0].tuned.inputs["probe"] == probe.tuned.id
    assert masked.cells[0].tuned.inputs["probe_change"] == probe.change.id


def test_every_step_stands_after_what_it_is_made_from_and_none_twice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, MASK, buckets=[0, 4], seeds=[0, 1])
    steps = [step for step, _ in plan.steps()]
    place = {step.id: number for number, step in enumerate(steps)}
    assert len(place) == len(steps)
    for step in steps:
        assert all(
            place[made_from] < place[step.id] for made_from in step.inputs.values() if made_from in place
        )
    assert sum(step.stage == "tuned" for step in steps) == 4 + 8
    # a probe of 2 facts for each of 2 buckets x 2 seeds, beside the cells' 2 and 4 facts
    trained = sum(cost.trained_tokens for _, cost in plan.steps())
    assert trained == 32 * (4 * 2 + 4 * (2 + 4))


def test_another_region_or_order_of_the_mask_is_another_probe_change_of_the_same_probe(
    tmp_path: Path,
) -> None:
    one, other = plan_of(tmp_path, MASK), plan_of(tmp_path, MASK | {"region": "mlp", "order": "bottom"})
    assert one.probes[0].tuned.id == other.probes[0].tuned.id
    assert one.probes[0].change.id != other.probes[0].change.id
    assert one.cells[1].tuned.id != other.cells[1].tuned.id


def test_a_probe_larger_than_a_training_set_is_refused(tmp_path: Path) -> None:
    with refused("one of the sets has only 2 facts", place="sft.mask.size", value=3):
        _ = plan_of(tmp_path, MASK | {"size": 3}).cells


class Quiet:
    """Progress that nobody watches."""

    def say(self, text: str) -> None: ...

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:  # noqa: ARG002
        class _Bar:
            def update(self, done: float, total: float, note: str = "") -> None: ...

        yield _Bar()


@pytest.fixture
def build(tmp_path: Path) -> KnowledgeBuild:
    """A study with masks whose training sets are drawn."""
    save_model(tmp_path / "base", "llama", 0, torch.float32)
    plan = plan_of(tmp_path / "base", MASK)
    build = KnowledgeBuild(plan, Store(tmp_path / "store"), Runtime(training=TrainingRuntime()), Quiet())
    for step, _ in plan.steps():
        if step.stage in ("facts", "mastery", "training-set"):
            write_text(build.path(step) / "train.parquet", step.id)
            build.commit(step)
    return build


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[SFTRun]]:
    """The runs of every call of train_runs, which here makes a model without training it."""
    calls: list[list[SFTRun]] = []

    def train_runs(
        runs: Sequence[SFTRun], _: object, report: Callable[[TrainingEvent], None], storage_dir: str
    ) -> None:
        assert storage_dir.endswith("ray-train")
        calls.append(list(runs))
        for run in runs:
            save_tuned(Path(run.output_dir), Path(run.base_model))
            report(TrainingEvent(run.run_id, "finished", 1, 1, 0.1, 0.0, 1.0))

    monkeypatch.setattr("sftlab.training.sft.train_runs", train_runs)
    return calls


def test_the_tuned_stage_trains_and_profiles_a_missing_probe_before_the_cells(
    build: KnowledgeBuild, trained: list[list[SFTRun]]
) -> None:
    build_tuned(build)
    plan, (probes, cells) = build.plan, trained
    assert [run.run_id for run in probes] == [plan.probes[0].run_id] and probes[0].mask is None
    assert probes[0].spec.mask is None
    assert [run.run_id for run in cells] == [cell.run_id for cell in plan.cells]
    assert not build.missing(*(cell.tuned for cell in (*plan.probes, *plan.cells)), plan.probes[0].change)
    mask = cells[1].mask
    assert mask is not None and mask == probe_mask(build, plan.cells[1])
    assert mask.probe == probes[0].output_dir and stored(Path(mask.probe))
    assert mask.cut == read_change(build, plan.probes[0]).cuts["50"]
    assert mask.cut.count == mask.cut.total // 2 > 0 and mask.cut.region == "layers"


def test_a_probe_that_another_study_has_made_is_used(
    build: KnowledgeBuild, trained: list[list[SFTRun]]
) -> None:
    plain = Plan(build.plan.spec.model_copy(update={"sft": build.plan.probes[0].sft}), SOURCES)
    build_tuned(KnowledgeBuild(plain, build.store, build.runtime, build.progress))
    assert [[run.run_id for run in runs] for runs in trained] == [[cell.run_id for cell in plain.cells]]
    trained.clear()
    build_tuned(build)
    assert [[run.mask is None for run in runs] for runs in trained] == [[False, False]]


def test_a_lost_profile_of_a_probe_is_made_again_by_the_change_stage(
    build: KnowledgeBuild, trained: list[list[SFTRun]]
) -> None:
    build_tuned(build)
    (probe,) = build.plan.probes
    (build.path(probe.change) / "record.json").unlink()
    trained.clear()
    run_study(KnowledgeBuild(build.plan, build.store, build.runtime, build.progress), until="change")
    assert not build.missing(probe.change, *(cell.change for cell in build.plan.cells))
    assert not trained
