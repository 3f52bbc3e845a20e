"""Studies: reading and checking their files, the plan, its ids and its costs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import yaml

from sftlab.errors import UserError
from sftlab.execution.preview import preview, total_cost, why_not
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.load import load_runtime, load_study
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"


def study(tmp_path: Path, text: str = "name: t\npocket: {}\n") -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def plan_of(tmp_path: Path, *overrides: str) -> Plan:
    spec = load_study(study(tmp_path), overrides)
    return Plan(spec, resolve(spec, tmp_path))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_validates_and_plans_with_a_cost(path: Path, tmp_path: Path) -> None:
    spec = load_study(path)
    plan = Plan(spec, resolve(spec, tmp_path))
    shown = preview(plan, Store(tmp_path), Runtime())
    cost = total_cost(shown)
    assert not any(row.hit for row in shown)
    assert cost.engine_starts == 2 and cost.generated_tokens > 0 and cost.bytes_written > 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_shipped_study_reads_from_the_data_and_models_of_the_repository(path: Path) -> None:
    spec, root = load_study(path), CONFIGS.parents[1]
    sources = [part.source for part in (spec.facts, spec.pocket) if part is not None and part.source]
    assert {Path(source).parent for source in sources} <= {root / "data"}
    assert spec.model is None or Path(spec.model.path).parent == root / "models"


@pytest.mark.parametrize("name", ["llama2-7b", "llama2-13b", "llama2-70b", "llama3-8b", "llama3-70b"])
def test_the_main_studies_have_all_sizes_of_the_paper(name: str) -> None:
    grid = load_study(CONFIGS / f"{name}.yaml").training_sets
    assert grid.sizes == (60, 120, 240, 480, 960, 1920, "all") and grid.balance == "fill"


@pytest.mark.parametrize("path", sorted((CONFIGS / "runtimes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_runtime_validates(path: Path) -> None:
    assert isinstance(load_runtime(path), Runtime)


def test_the_paper_s_grid_costs_what_its_numbers_say(tmp_path: Path) -> None:
    spec = load_study(CONFIGS / "llama3-8b.yaml")
    plan = Plan(spec, resolve(spec, tmp_path))
    (mastery,) = [cost for step, cost in plan.steps() if step.stage == "mastery"]
    facts = 75_944 + 9_555 + 11_613 + 9_580 + 11_563
    assert mastery.completions == facts * 21 * 10
    assert sum(step.stage == "evaluation" for step, _ in plan.steps()) == 5 * 7 * 5 * 8 + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: t\npocket: {}\nsft: {lerning_rate: 1}\n", "'sft.lerning_rate'; did you mean 'learning_rate'"),
        ("name: t\npocket: {}\nmastry: {}\n", "did you mean 'mastery'"),
        ("pocket: {}\n", "name: is required"),
        ("name: t\n", "give either `pocket`"),
        ("name: t\npocket: {}\nfacts: {source: x}\n", "leave `facts` and `model` out"),
        ("name: t\npocket: {}\nrestore: {percents: [101]}\n", "restore.percents.0"),
        ("name: t\npocket: {}\nrestore: {percents: [1, 1]}\n", "listed twice"),
        ("name: t\npocket: {}\ntraining_sets: {sizes: [0]}\n", "training_sets.sizes.0"),
        ("name: t\npocket: {}\ntraining_sets: {buckets: [7]}\n", "training_sets.buckets.0"),
        (
            "name: t\npocket: {}\ntraining_sets: {sizes: [5, 9, 5]}\n",
            "training_sets.sizes: 5 is listed twice",
        ),
        ("name: t\npocket: {}\ntraining_sets: {seeds: [1, 1]}\n", "training_sets.seeds: 1 is listed twice"),
        (
            "name: t\npocket: {}\ntraining_sets: {buckets: ['1:0.5+4:0.5', '4:0.50+1:0.5']}\n",
            r"training_sets.buckets: 1:0.5\+4:0.5 is listed twice",
        ),
        ("name: t\npocket: {}\ntraining_sets: {buckets: [2, '2:1']}\n", "buckets: 2 is listed twice"),
        ("name: ../t\npocket: {}\n", "name"),
        ("name: t\nname: u\npocket: {}\n", "given twice"),
        ("- a\n", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_wrong_study_files_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_study(study(tmp_path, text))
    assert "study.yaml" in str(error.value)


def test_a_missing_study_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_study(tmp_path / "none.yaml")


def test_overrides_are_checked_like_the_file_and_split_by_their_prefix(tmp_path: Path) -> None:
    path = study(tmp_path)
    overrides = ["sft.learning_rate=1e-4", "training_sets.sizes=[5, 10]", "runtime.store=elsewhere"]
    spec = load_study(path, overrides)
    assert spec.sft.learning_rate == 1e-4 and spec.training_sets.sizes == (5, 10)
    assert load_runtime(None, overrides).store == "elsewhere"
    for wrong, message in [("sft", "KEY=VALUE"), ("name.a=1", "further keys"), ("sft.rte=1", "unknown key")]:
        with pytest.raises(UserError, match=message):
            load_study(path, [wrong])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainig_sets.sizes=[25]"], "--set trainig_sets.sizes: unknown key 'trainig_sets'; did you mean"),
        (["sft.rte=1", "sft.epochs=2"], "--set sft.rte: unknown key 'sft.rte'"),
        (["sft.epochs=0", "sft.epochs=-1"], "--set sft.epochs: sft.epochs: "),
        (
            ["training_sets.sizes=[]"],
            "--set training_sets.sizes: training_sets.sizes: expected at least 1 item (f",
        ),
        (["training_sets={sizes: [5, 0]}"], "--set training_sets: training_sets.sizes.1: "),
        (["sft={epochs: 0}", "sft.batch_size=2"], "--set sft: sft.epochs: "),
        (["facts.split=x"], "--set facts.split: facts.source: is required."),
    ],
)
def test_what_an_option_brought_is_blamed_on_it_and_not_on_the_file(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    path = study(tmp_path)
    with pytest.raises(UserError) as error:
        load_study(path, overrides)
    assert any(line.startswith(message) for line in str(error.value).splitlines()), error.value


def test_what_the_file_has_wrong_is_blamed_on_it_whatever_options_set_beside_it(tmp_path: Path) -> None:
    path = study(tmp_path, "name: t\npocket: {}\nmastry: {samples: 3}\nsft: {rte: 1}\n")
    with pytest.raises(UserError) as error:
        load_study(path, ["mastry.max_tokens=3", "sft.epochs=2"])
    told = str(error.value).splitlines()
    assert [line.partition(";")[0] for line in told if "unknown" in line] == [
        f"{path}: unknown key 'sft.rte'",
        f"{path}: unknown key 'mastry'",
    ]


def test_an_option_of_the_runtime_is_named_as_it_was_given() -> None:
    with refused("unknown key 'stoer'", value="x", advice="did you mean 'store'"):
        load_runtime(None, ["runtime.stoer=x", "name=t"])


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("4:0.50+1:0.5", "1:0.5+4:0.5"),
        ("0:0.25+4:0.75", "0:0.25+4:0.75"),
        ("3:1.0", 3),
        ("2", 2),
        ("mixed", "mixed"),
        ("4:0.999999999999+0:0.000000000001", "0:0.000000000001+4:0.999999999999"),
    ],
)
def test_equal_mixtures_have_one_writing(tmp_path: Path, given: str, written: int | str) -> None:
    spec = load_study(study(tmp_path), [f"training_sets.buckets=['{given}']"])
    assert spec.training_sets.buckets == (written,)


def test_zero_percent_is_always_part_of_a_ladder(tmp_path: Path) -> None:
    assert load_study(study(tmp_path), ["restore.percents=[20, 5]"]).restore.percents == (0, 5, 20)


def test_ids_are_golden(tmp_path: Path) -> None:
    """An accident that re-addresses everyone's results fails here; bump the stage's revision on purpose."""
    spec = load_study(CONFIGS / "tiny.yaml", ["training_sets.sizes=[2]", "training_sets.buckets=[4]"])
    found = {step.stage: step.id[:12] for step, _ in Plan(spec, resolve(spec, tmp_path)).steps()}
    golden = yaml.safe_load((Path(__file__).parent / "golden_ids.yaml").read_text())
    assert found == golden


def test_a_field_moves_only_what_rests_on_it(tmp_path: Path) -> None:
    first, second = plan_of(tmp_path), plan_of(tmp_path, "sft.learning_rate=1e-4")
    assert first.mastery.id == second.mastery.id
    assert first.base_evaluation.id == second.base_evaluation.id
    assert first.cells[0].training_set.id == second.cells[0].training_set.id
    assert first.cells[0].tuned.id != second.cells[0].tuned.id
    assert first.results.id != second.results.id


def test_growing_the_grid_or_the_ladder_keeps_every_old_result(tmp_path: Path) -> None:
    small = plan_of(tmp_path, "training_sets.sizes=[25]", "restore.percents=[0,10]")
    large = plan_of(tmp_path, "training_sets.sizes=[25,100]", "restore.percents=[0,10,20]")
    kept = {s.id for s, _ in large.steps()}
    for cell in small.cells:
        assert {cell.tuned.id, *(step.id for step in cell.evaluations.values())} <= kept


def test_the_tuned_model_s_answers_serve_every_order_of_restoration(tmp_path: Path) -> None:
    top, bottom = plan_of(tmp_path), plan_of(tmp_path, "restore.order=bottom")
    assert top.cells[0].evaluations[0.0].id == bottom.cells[0].evaluations[0.0].id
    assert top.cells[0].evaluations[10.0].id != bottom.cells[0].evaluations[10.0].id


def test_runtime_and_paths_move_no_id(tmp_path: Path) -> None:
    import zipfile

    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as out:
            out.writestr(zipfile.ZipInfo("x"), "same")
    a = plan_of(tmp_path, f"pocket.source={tmp_path / 'a.zip'}")
    b = plan_of(tmp_path, f"pocket.source={tmp_path / 'b.zip'}")
    assert a.facts.id == b.facts.id != plan_of(tmp_path).facts.id


def test_a_source_that_is_not_there_is_named_before_anything_is_built(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "pocket.source=nowhere/entity_questions.zip")
    with pytest.raises(UserError, match=r"nowhere/entity_questions\.zip.*make data"):
        plan.outside.require()


def test_the_preview_tells_hits_from_builds_and_why(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of(tmp_path)
    write_text(store.path(plan.facts) / "x", "x")
    store.commit(plan.facts)
    rows = {row.step.id: row for row in preview(plan, store, Runtime())}
    assert rows[plan.facts.id].hit and not rows[plan.mastery.id].hit
    other = plan_of(tmp_path, "pocket.seed=5")
    reason = next(r.reason for r in preview(other, store, Runtime()) if r.step.stage == "facts")
    assert reason == "pocket.seed: 0 -> 5"


def committed(store: Store, *steps: Step) -> None:
    for step in steps:
        write_text(store.path(step) / "x", "x")
        store.commit(step)


def reasons(plan: Plan, store: Store) -> dict[str, str]:
    """The reason of the first step of each stage that is to be built."""
    found: dict[str, str] = {}
    for row in preview(plan, store, Runtime()):
        if not row.hit:
            found.setdefault(row.step.stage, row.reason)
    return found


def test_a_miss_is_explained_by_the_nearest_result_and_not_by_another_study_s(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, other = plan_of(tmp_path), plan_of(tmp_path, "pocket.seed=7", "name=other")
    for plan in (other, mine):  # the same slugs and settings in both studies
        assert plan.model is not None
        cell = plan.cells[0]
        committed(store, plan.facts, plan.model, plan.mastery, cell.training_set, cell.tuned)
    rate = reasons(plan_of(tmp_path, "sft.learning_rate=1e-4"), store)
    assert rate["tuned"] == "learning_rate: 1e-05 -> 0.0001"
    samples = reasons(plan_of(tmp_path, "mastery.samples=3"), store)
    assert samples["mastery"] == "mastery.samples: 10 -> 3"
    assert samples["training-set"] == "needs mastery first" and samples["tuned"] == "needs training set first"
    assert samples["results"].startswith("needs ") and samples["results"].endswith(" other results first")


def test_a_miss_with_nothing_alike_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other, third = plan_of(tmp_path, "pocket.seed=7"), plan_of(tmp_path, "pocket.seed=8")
    assert other.model is not None and third.model is not None
    committed(store, other.facts, other.model, other.mastery, third.facts, third.model)
    assert reasons(third, store)["mastery"] == "nothing alike in the store"
    far = Step("facts", "t", {f"field{n}": n for n in range(9)})
    assert why_not(far, store.records("facts"), of_results=False) == "nothing alike in the store"
    assert why_not(far, [], of_results=False) == "not in the store"


def test_an_unfinished_step_is_said_to_be_resumed(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of(tmp_path)
    write_text(store.work(plan.mastery) / "blocks" / "00000.parquet", "x")
    row = next(r for r in preview(plan, store, Runtime()) if r.step.stage == "mastery")
    assert "will be resumed" in row.reason


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.ENOSPC,
            r"record.*cannot be committed \(No space left on device\); free some space and run again",
        ),
        (
            errno.EACCES,
            r"record.*\(Permission denied\); make the store writable, or choose another by --store",
        ),
        (errno.EIO, r"record.*\(Input/output error\); look at the disk or mount"),
    ],
)
def test_a_commit_that_the_file_system_refuses_says_what_to_do(
    code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    store = Store(tmp_path)
    write_text(store.path(plan.facts) / "x", "x")

    def refuse(path: Path, _: str) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("sftlab.store.local.write_text", refuse)
    with pytest.raises(UserError, match=message):
        KnowledgeBuild(plan, store, Runtime(), SilentProgress()).commit(plan.facts)


def test_a_spec_s_defaults_are_the_study_s() -> None:
    spec = StudySpec.model_validate({"name": "t", "pocket": {}})
    assert (spec.mastery.samples, spec.mastery.temperature, spec.mastery.max_tokens) == (10, 0.7, 32)
    assert (spec.sft.batch_size, spec.sft.epochs, spec.sft.learning_rate) == (8, 1, 1e-5)
    assert spec.answers.max_tokens == 16 and spec.divergence.top == 10
    assert spec.restore.percents == (0, 1, 3, 5, 10, 20, 40, 60)


def test_a_step_lies_under_its_stage_slug_and_id(tmp_path: Path) -> None:
    step = Step("tuned", "bucket0-n25-s0", {"a": 1})
    assert Store(tmp_path).path(step) == tmp_path / "tuned" / f"bucket0-n25-s0-{step.id[:12]}"


def test_facts_without_any_dev_question_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    from sftlab.execution.progress import SilentProgress
    from sftlab.studies.knowledge.build import KnowledgeBuild
    from sftlab.studies.knowledge.stages.facts import build_facts

    facts, topics = tmp_path / "facts.jsonl", tmp_path / "topics.yaml"
    row = '{{"subject": "s{0}", "object": "o{0}", "topic": "t", "split": "{1}"}}\n'
    facts.write_text("".join(row.format(i, "train" if i else "test") for i in range(9)))
    topics.write_text(
        "- {topic: t, domain: in-domain, question: 'Q {subject}?', templates: ['{subject} is']}\n"
    )
    text = f"name: t\nfacts: {{source: {facts}, templates: {topics}}}\nmodel: {{path: {tmp_path}/none}}\n"
    spec = load_study(study(tmp_path, text), ["training_sets.sizes=[2]"])
    plan = Plan(spec, resolve(spec, tmp_path))
    build = KnowledgeBuild(plan, Store(tmp_path / "store"), Runtime(), SilentProgress())
    with refused("dev and dev_ood have no facts"):
        build_facts(build)
    assert build.missing(plan.facts)
    assert build.model_folder.is_absolute()
