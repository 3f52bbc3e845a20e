"""The plan of a survey: ids follow content, and additions move nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sftlab.execution.preview import preview
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.report.published import published
from sftlab.studies.load import load_survey
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import SurveySources

CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"


def plan(*overrides: str) -> SurveyPlan:
    return SurveyPlan(load_survey(CONFIGS / "tiny.yaml", overrides), SurveySources())


def ids(of: SurveyPlan) -> set[str]:
    return {step.id for step, _ in of.steps()}


def test_every_step_follows_those_that_it_is_made_of() -> None:
    seen: set[str] = set()
    for step, _ in plan().steps():
        assert set(step.inputs.values()) <= seen, step.slug
        seen.add(step.id)
    assert len(seen) == len(ids(plan()))


def test_tiny_survey_has_two_bases_seven_runs_and_nine_models() -> None:
    stages = [step.stage for step, _ in plan().steps()]
    counts = {name: stages.count(name) for name in dict.fromkeys(stages)}
    assert counts == {
        "base": 2,
        "drawn": 3,
        "questions": 4,
        "survey-tuned": 7,
        "movement": 7,
        "change": 4,
        # nine models, the perplexity of three sets under two bases, four restored models, one of WiSE-FT, a map of nine
        # models, a layer map
        "scores": 36 + 6 + 16 + 4 + 9 + 1,
        "geometry": 2
        + 6
        + 1
        + 3,  # bases and the models of the first group of runs; pictures of those of one base
        "embedding": 2 * (3 + 4),  # bases; sets and benchmarks
        "survey-results": 1,
        "survey-report": 1,
    }


def test_engines_start_once_for_each_base_that_has_something_to_answer(tmp_path: Path) -> None:
    steps = preview(plan(), Store(tmp_path), Runtime())
    starting = [planned.step for planned in steps if planned.cost.engine_starts]
    assert [step.inputs["model"] for step in starting] == [
        plan().base_id(base) for base in plan().spec.bases.names
    ]


def test_another_benchmark_set_or_run_adds_steps_and_moves_no_score() -> None:
    before = plan("measure={}")
    made = {step.id for step, _ in before.steps() if step.stage not in ("survey-results", "survey-report")}
    for added in (
        "benchmarks.pocket=[facts,sums,moods,yes-no,kinds]",
        "data.pocket=[facts-short,sums-steps,chatty,code]",
        "runs.0.sizes=[40,80]",
    ):
        assert made < ids(plan(added, "measure={}")), added


def test_measurements_on_request_add_steps_and_move_none() -> None:
    left = {step.id for step, _ in plan("measure={}").steps() if not step.stage.startswith("survey-re")}
    assert left < ids(plan())
    assert plan("measure={}").results.id != plan().results.id


def test_ids_of_bases_and_scores_do_not_depend_on_measurements_on_request() -> None:
    for made in (plan("measure={}"), plan()):
        scores = made.models[0].scores["facts"]
        assert (made.bases["a"].id[:12], scores.id[:12]) == ("d745e963684f", "95fc1bbbdb7f")


def test_name_of_a_survey_is_a_label_and_the_title_of_its_report() -> None:
    one, other = plan(), plan("name=another")
    assert ids(one) - {one.report.id} == ids(other) - {other.report.id}
    assert one.report.id != other.report.id


def test_template_seed_and_world_change_what_depends_on_them() -> None:
    bases = {step.id for step in plan().bases.values()}
    assert bases == {step.id for step in plan("template=chat").bases.values()}
    assert bases.isdisjoint(step.id for step in plan("world.seed=1").bases.values())
    tuned = {model.tuned.id for model in plan().models if model.tuned}
    assert tuned.isdisjoint(model.tuned.id for model in plan("template=chat").models if model.tuned)


def test_pocket_survey_plans_ninety_five_runs_of_six_bases() -> None:
    survey = SurveyPlan(load_survey(CONFIGS / "pocket.yaml"), SurveySources())
    assert len(survey.runs) == 95
    assert len(survey.models) == 6 + 113
    assert len(survey.ladders) == 6 * 3
    assert len(survey.scored) == 6 + 113 + 6 * 3 * 3


def test_grid_of_the_paper_has_its_number_of_models() -> None:
    spec = load_survey(CONFIGS / "massive-sft.yaml")
    missing = {
        name: f"missing:{name}" for name in (*spec.bases.names, *spec.data.names, *spec.benchmarks.names)
    }
    survey = SurveyPlan(spec, SurveySources(missing, missing, missing))
    kinds = Counter(
        (m.run.method, m.run.sft.schedule, m.run.size, len(m.run.members)) for m in survey.models if m.run
    )
    assert kinds == {
        ("full", "cosine", 1000, 1): 120,
        ("lora", "cosine", 1000, 1): 120,
        ("full", "cosine", 1000, 10): 120,
        ("lora", "cosine", 1000, 10): 120,
        ("full", "constant", 1000, 1): 300,
        ("full", "constant", 20000, 1): 270,
        ("full", "cosine", 1000, 9): 10,
        ("lora", "cosine", 1000, 9): 10,
    }
    assert sum(kinds.values()) == 1070  # section 3
    assert len({step.id for step, _ in survey.steps()}) == len(list(survey.steps()))


def test_benchmarks_of_the_paper_are_eight_tasks_and_two_files_of_programs() -> None:
    asked = load_survey(CONFIGS / "massive-sft-benchmarks.yaml").benchmarks
    assert len(asked.tasks) == 8 and set(asked.programs) == {"humaneval", "mbpp"}
    assert asked.harness is not None and asked.harness.shots == 0
    assert asked.code is not None and not asked.code.allow


def test_table_5_restores_the_two_models_of_llama_3_at_the_percentages_of_the_paper() -> None:
    spec = load_survey(CONFIGS / "table5.yaml")
    rungs = set(published()["restoration_other_tasks"]["restore_percent"])
    assert spec.restore is not None and {f"{percent:g}" for percent in spec.restore.percents} == rungs
    missing = {
        name: f"missing:{name}" for name in (*spec.bases.names, *spec.data.names, *spec.benchmarks.names)
    }
    survey = SurveyPlan(spec, SurveySources(missing, missing, missing))
    assert len(survey.runs) == 4 and len(survey.ladders) == 2  # of two bases; of the first base
    assert len(survey.scored) == 2 + 4 + 2 * 7
    assert {name: file.metric for name, file in spec.benchmarks.files.items()} == {
        "xsum": "rouge-l",
        "gsm8k": "number",
    }


def test_root_is_where_relative_paths_start_and_no_part_of_ids() -> None:
    spec = load_survey(
        CONFIGS / "massive-sft.yaml", ["root=/shared", "data.files.lima.source=/else/lima.jsonl"]
    )
    assert spec.bases.folders["olmo"].path == "/shared/models/OLMo-7B-hf"
    assert spec.data.files["alpaca"].source == "/shared/data/alpaca_cleaned.json"
    assert spec.data.files["lima"].source == "/else/lima.jsonl"
    assert spec.benchmarks.files["nq"].source == "/shared/data/benchmarks/nq.jsonl"
    assert ids(plan()) == ids(plan("root=/shared"))
