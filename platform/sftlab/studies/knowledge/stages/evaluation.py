"""Stage 9: every model of every ladder answers all questions, with as few engine starts as possible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.facts.table import facts_table, read_facts
from sftlab.facts.templates import read_topics
from sftlab.measurements.tables import read_answer_table
from sftlab.store.artifact import DAMAGED
from sftlab.store.fingerprint import fingerprint
from sftlab.store.mirror import drop, pull
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.strategies import edit_for
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.prices import EVALUATION_SPLITS
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.mastery import read_mastery
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest

TRAIN_SET = "train_set"


def build_evaluations(build: KnowledgeBuild) -> None:
    """Answer with the base, the tuned and all restored models; each is committed as it is finished."""
    from sftlab.inference.evaluator import evaluate_with_engines

    steps, request = evaluation_request(build)
    with build.progress.bar("evaluating models") as bar:
        evaluate_with_engines(
            request,
            build.runtime.engine,
            progress=lambda p: bar.update(p.items_done, p.items, f"{p.rows_per_second:,.0f} answers/s"),
            finished=lambda item: _commit(build, steps[item.id]),
        )
    drop(request.session_dir)


def evaluation_request(build: KnowledgeBuild) -> tuple[dict[str, Step], EvaluationRequest]:
    """What is missing of a plan's evaluations: the steps by item id, and the request to the engines."""
    from sftlab.inference.evaluator import EvaluationRequest
    from sftlab.measurements.divergence import FirstTokenDivergence

    plan, spec, base = build.plan, build.plan.spec, str(build.model_folder)
    folder = build.read(plan.facts)
    facts = {split: read_facts(folder, split) for split in EVALUATION_SPLITS}
    steps, items = _items(build, facts)
    divergence = FirstTokenDivergence(
        spec.divergence,
        spec.answers.max_tokens,
        facts["test"],
        read_mastery(build, "test"),
        read_topics(folder),
        ModelSource(base),
    )
    damaged = build.store.root / DAMAGED
    return steps, EvaluationRequest(items, base, spec.engine, _session(build), damaged, divergence)


def read_answers(build: KnowledgeBuild, step: Step) -> dict[str, pa.Table]:
    """Answers of one evaluated model, by split."""
    import pyarrow.compute as pc

    table = read_answer_table(build.read(step, "answers.parquet"))
    return {
        split: table.filter(pc.equal(table["split"], split))
        for split in pc.unique(table["split"]).to_pylist()
    }


def _commit(build: KnowledgeBuild, step: Step) -> None:
    build.commit(step)


def _items(
    build: KnowledgeBuild, facts: Mapping[str, pa.Table]
) -> tuple[dict[str, Step], list[EvaluationItem]]:
    """The missing evaluations: their steps by item id, and the models to evaluate."""
    from sftlab.inference.evaluator import EvaluationItem
    from sftlab.measurements.answers import ANSWERS, ClosedBookAnswers

    plan, base = build.plan, str(build.model_folder)
    steps: dict[str, Step] = {}
    items: list[EvaluationItem] = []

    def add(step: Step, source: ModelSource, asked: Mapping[str, pa.Table]) -> None:
        steps[step.id[:16]] = step
        answers = ClosedBookAnswers(asked, plan.spec.answers)
        items.append(EvaluationItem(step.id[:16], source, {ANSWERS: answers}, build.path(step)))

    if build.missing(plan.base_evaluation):
        add(plan.base_evaluation, ModelSource(base), facts)
    for cell in plan.cells:
        missing = {step.id for step in build.missing(*cell.evaluations.values())}
        if not missing:
            continue
        asked = {**facts, TRAIN_SET: _training_facts(build, cell)}
        cuts = read_change(build, cell).cuts
        tuned = str(build.tuned_model(cell))
        for percent, step in cell.evaluations.items():
            if step.id in missing:
                add(step, ModelSource(base, tuned, edit_for(plan.spec.restore, percent, cuts)), asked)
    return steps, items


def _training_facts(build: KnowledgeBuild, cell: Cell) -> pa.Table:
    return read_table(Path(pull(training_file(build, cell))), facts_table([]).schema)


def _session(build: KnowledgeBuild) -> Path:
    """Where a killed session keeps its pieces: one folder for one base model and one set of specs."""
    plan, spec = build.plan, build.plan.spec
    made_of = {
        "answers": spec.answers.model_dump(),
        "divergence": spec.divergence.model_dump(),
        "engine": spec.engine.model_dump(),
    }
    key = fingerprint("session", 1, made_of, {"mastery": plan.mastery.id, "model": plan.model_id})
    return build.store.root / "sessions" / key[:16]
