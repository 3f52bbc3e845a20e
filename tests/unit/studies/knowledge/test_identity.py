"""A study's results follow from content: not from file times, paths or names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sftlab.errors import UserError
from sftlab.execution.preview import PlannedStep, preview
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.strategies import base, registry
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.weights.model_id import folder_of, model_hash
from tests.support.refusals import refused
from tests.support.small_sweeps import AXES, sweep_of

GRID = {"buckets": [0, 4], "sizes": [2], "seeds": [0]}


def named(name: str, **settings: object) -> StudySpec:
    return StudySpec.model_validate({"name": name, "pocket": {}, "training_sets": GRID, **settings})


def plan_of(spec: StudySpec, store: Store) -> Plan:
    return Plan(spec, resolve(spec, store.root))


def finish(plan: Plan, store: Store) -> None:
    for step, _ in plan.steps():
        store.path(step).mkdir(parents=True)
        (store.path(step) / "file").write_text(step.id)
        store.commit(step)


def previewed(plan: Plan, store: Store) -> dict[str, list[PlannedStep]]:
    found: dict[str, list[PlannedStep]] = {}
    for planned in preview(plan, store, Runtime()):
        found.setdefault(planned.step.stage, []).append(planned)
    return found


def test_a_renamed_study_finds_all_that_does_not_hold_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(plan_of(named("one"), store), store)
    found = previewed(plan_of(named("two"), store), store)
    built = {
        stage: [s.reason for s in steps] for stage, steps in found.items() if not all(s.hit for s in steps)
    }
    assert built == {
        "results": ["name: one -> two"],
        "report": ["needs results first"],
    }


@pytest.mark.parametrize("stage", ["facts", "model", "mastery", "best"])
def test_results_in_folders_with_a_study_s_name_are_found_and_go_on(tmp_path: Path, stage: str) -> None:
    store = Store(tmp_path)
    plan = plan_of(named("two"), store)
    finish(plan, store)
    step = {"facts": plan.facts, "model": plan.model, "mastery": plan.mastery, "best": plan.best}[stage]
    assert step is not None
    folder = store.path(step)
    old = folder.rename(folder.with_name(f"one-{step.id[:12]}"))
    record = json.loads((old / "record.json").read_text())
    (old / "record.json").write_text(json.dumps(record | {"slug": "one"}))
    (tmp_path / stage / f"three-{'0' * 12}").mkdir()
    assert store.path(step) == old and store.find(step) is not None and store.is_committed(step)
    assert all(planned.hit for steps in previewed(plan, store).values() for planned in steps)
    assert store.verify(print) == len(list(plan.steps()))
    (old / "record.json").unlink()
    assert store.find(step) is None and store.is_begun(step) and store.work(step) == old / "work"
    assert store.commit(step).slug == "one" and store.verify(print) == len(list(plan.steps()))


def test_of_two_folders_of_one_id_the_committed_one_is_the_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = plan_of(named("two"), store).facts
    begun = tmp_path / "facts" / step.folder
    whole = tmp_path / "facts" / f"one-{step.id[:12]}"
    whole.mkdir(parents=True)
    (whole / "file").write_text("")
    store.commit(step)
    begun.mkdir()
    assert store.path(step) == whole and store.find(step) is not None


def test_a_new_revision_is_the_reason_only_where_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sftlab.studies.knowledge import plan as plans

    store = Store(tmp_path)
    finish(plan_of(named("one"), store), store)
    monkeypatch.setitem(plans.REVISIONS, "mastery", plans.REVISIONS["mastery"] + 1)
    (mastery,) = previewed(plan_of(named("two"), store), store)["mastery"]
    assert (mastery.hit, mastery.reason) == (False, "the stage's revision: 1 -> 2")


def brought(folder: Path) -> StudySpec:
    """A study of a base model and custom facts, both in `folder`."""
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text("{}")
    save_file({"w": torch.ones(4)}, folder / "base" / "model.safetensors")
    rows = [{"subject": f"s{i}", "object": "o", "topic": "A", "split": "train"} for i in range(4)]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "topics.yaml").write_text(
        '- {topic: A, question: "Who is {subject}?", templates: ["{subject} is"]}\n'
    )
    facts = {"source": str(folder / "facts.jsonl"), "templates": str(folder / "topics.yaml")}
    model = {"path": str(folder / "base")}
    return StudySpec.model_validate({"name": "t", "facts": facts, "model": model, "training_sets": GRID})


def other_weights(folder: Path) -> None:
    save_file({"w": torch.zeros(4)}, folder / "base" / "model.safetensors")


def other_object(folder: Path) -> None:
    path = folder / "facts.jsonl"
    path.write_text(path.read_text().replace('"object": "o"', '"object": "p"'))


def other_template(folder: Path) -> None:
    path = folder / "topics.yaml"
    path.write_text(path.read_text().replace("{subject} is", "{subject} as"))


def set_times(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (315_532_800, 315_532_800))


@pytest.mark.parametrize(
    ("swap", "moved"), [(other_weights, "mastery"), (other_object, "facts"), (other_template, "facts")]
)
def test_other_content_of_the_same_size_and_time_is_another_study(
    tmp_path: Path, swap: Callable[[Path], None], moved: str
) -> None:
    spec, store = brought(tmp_path / "in"), Store(tmp_path / "store")
    set_times(tmp_path / "in")
    first = {step.stage: step.id for step, _ in plan_of(spec, store).steps()}
    sizes = {path: path.stat().st_size for path in (tmp_path / "in").rglob("*")}
    swap(tmp_path / "in")
    set_times(tmp_path / "in")
    assert sizes == {path: path.stat().st_size for path in (tmp_path / "in").rglob("*")}
    second = {step.stage: step.id for step, _ in plan_of(spec, store).steps()}
    assert (first["facts"] == second["facts"]) == (moved == "mastery")
    assert all(first[stage] != second[stage] for stage in first if stage != "facts")


@pytest.mark.parametrize(
    ("swap", "stage", "others"),
    [
        (other_weights, "mastery", "facts"),
        (other_object, "facts", "mastery"),
        (other_template, "facts", "mastery"),
    ],
)
def test_a_result_of_files_that_have_changed_since_the_plan_is_not_committed(
    tmp_path: Path, swap: Callable[[Path], None], stage: str, others: str
) -> None:
    spec, store = brought(tmp_path / "in"), Store(tmp_path / "store")
    plan = plan_of(spec, store)
    build = KnowledgeBuild(plan, store, Runtime(), SilentProgress())
    set_times(tmp_path / "in")  # other stamps, the same content
    steps = {step.stage: step for step, _ in plan.steps()}
    for name in (stage, others):
        build.path(steps[name]).mkdir(parents=True)
    plan.outside.require_unchanged(stage)
    swap(tmp_path / "in")
    with pytest.raises(UserError, match=rf"has changed since the study was planned.*stage {stage}"):
        build.commit(steps[stage])
    assert store.find(steps[stage]) is None
    assert build.commit(steps[others]).id == steps[others].id


def test_a_file_that_is_added_to_a_base_model_is_a_change(tmp_path: Path) -> None:
    spec = brought(tmp_path / "in")
    sources = resolve(spec, tmp_path / "store")
    (tmp_path / "in" / "base" / "chat_template.jinja").write_text("")
    with refused("has changed since the study was planned"):
        sources.outside.require_unchanged("tuned")


def test_a_base_model_is_found_again_where_it_was_seen_and_only_while_it_is_the_same(tmp_path: Path) -> None:
    brought(tmp_path / "in")
    folder, root = tmp_path / "in" / "base", tmp_path / "store"
    content = model_hash(folder, root)
    assert folder_of(content, root) == folder and folder_of("0" * 64, root) is None
    other_weights(tmp_path / "in")
    assert folder_of(content, root) is None


def test_a_linked_folder_of_an_archive_counts_by_what_it_leads_to(tmp_path: Path) -> None:
    spec = brought(tmp_path / "in")
    for name in ("v1", "v2"):
        (tmp_path / "eq" / name / "train").mkdir(parents=True)
        (tmp_path / "eq" / name / "train" / "P17.train.json").write_text(json.dumps([name]))
    assert spec.facts is not None
    spec = spec.model_copy(
        update={"facts": spec.facts.model_copy(update={"source": str(tmp_path / "eq"), "templates": None})}
    )
    link = tmp_path / "eq" / "dataset"
    found = []
    for name in ("v1", "v2", "v1"):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        found.append(resolve(spec, tmp_path / "store").facts["source"])
    assert found[0] == found[2] != found[1]


PLUGIN = """
from sftlab.strategies import EditStrategy, register


@register
class Halved(EditStrategy):
    name = "halved-for-a-test"
    title = "Halved"
    source = "none"
    uses_cut = False

    def edit(self, percent, cut):
        return {value}
"""


def test_the_code_of_a_custom_strategy_is_part_of_the_ids_of_what_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "KNOWN", dict(registry.KNOWN))
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    found = []
    for number, value in enumerate(("None", "0", "None")):
        module = f"halved_module_{number}"
        registry.KNOWN.pop("halved-for-a-test", None)
        (tmp_path / f"{module}.py").write_text(PLUGIN.replace("{value}", value))
        registry.load_plugins([module])
        spec = named("t", restore={"method": "halved-for-a-test", "percents": [0, 10]})
        found.append({step.slug: step.id for step, _ in plan_of(spec, Store(tmp_path / "s")).steps()})
    changed = {slug for slug in found[0] if found[0][slug] != found[1][slug]}
    assert changed == {"bucket0-n2-s0-r10", "bucket4-n2-s0-r10", "best", "t"} and found[0] == found[2]
    assert issubclass(registry.get_strategy("halved-for-a-test").__class__, base.EditStrategy)


def test_shipped_strategies_are_told_apart_by_their_stage_s_revision() -> None:
    assert {registry.source_of(name) for name in ("restore", "wise-ft", "dare", "lora")} == {None}


def test_a_custom_strategy_without_a_file_is_refused_where_it_would_be_part_of_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "KNOWN", dict(registry.KNOWN))
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    exec(PLUGIN.replace("{value}", "None"), {"__name__": "in_no_file"})
    spec = named("t", restore={"method": "halved-for-a-test", "percents": [0, 10]})
    with refused("its class Halved is in no file", place="halved-for-a-test"):
        list(plan_of(spec, Store(tmp_path)).steps())


def test_a_sweep_with_other_code_of_a_custom_strategy_is_another_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    ids = []
    for source in (None, "a" * 64, "b" * 64, None):
        registry.SOURCES["wise-ft"] = source
        ids.append(sweep_of(tmp_path, axes=AXES).id)
    assert ids[0] == ids[3] and len(set(ids)) == 3
