"""Stage 7: geometry of the hidden states of prompts, of base models and of models tuned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.studies.survey.stages.drawn import FILE as EXAMPLES
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "geometry.parquet"


@dataclass(frozen=True)
class Prompts:
    """Token ids of prompts, and the set that each is from."""

    ids: Sequence[tuple[int, ...]]
    labels: Sequence[str]


def build_geometry(build: SurveyBuild) -> None:
    """Measure every model that is missing, as many at a time as there are engines."""
    import ray

    from sftlab.inference.actors import actor_options, result
    from sftlab.measurements.hidden_geometry import GeometryWorker

    steps = build.plan.measured.geometries
    missing = [
        model for model in build.plan.models if model.name in steps and build.missing(steps[model.name])
    ]
    if not missing:
        return
    runtime = build.runtime.evaluation_engine
    worker = ray.remote(GeometryWorker).options(**actor_options(runtime))
    idle: list[Any] = [worker.remote(runtime) for _ in range(min(runtime.engines, len(missing)))]
    prompts = {base: _prompts(build, base) for base in dict.fromkeys(model.base for model in missing)}
    running: dict[Any, tuple[Any, Model]] = {}
    queue = iter(missing)
    with build.progress.bar("geometry of hidden states") as bar:
        for done in range(len(missing)):
            while idle and (model := next(queue, None)) is not None:
                actor, asked = idle.pop(), prompts[model.base]
                source, dtype = _source(build, model), _dtype(build, model)
                running[actor.measure.remote(source, dtype, asked.ids, asked.labels)] = (actor, model)
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, model = running.pop(ready)
            _commit(build, model, result(ready))
            idle.append(actor)
            bar.update(done + 1, len(missing), model.name)
    for actor in idle:
        ray.kill(actor)


def read_geometry(build: SurveyBuild, model: Model) -> list[dict[str, Any]]:
    """The committed geometry of a model, a row a layer."""
    from sftlab.measurements.hidden_geometry import geometry_schema

    file = build.read(build.plan.measured.geometries[model.name], FILE)
    rows: list[dict[str, Any]] = read_table(file, geometry_schema()).to_pylist()
    return rows


def _prompts(build: SurveyBuild, base: str) -> Prompts:
    """The first prompts of each set, in the template and tokens of a base, without those that are too long for it."""
    from sftlab.datasets.conversations import Conversation
    from sftlab.datasets.encode import Encoder
    from sftlab.datasets.examples import conversations_of, examples_schema
    from sftlab.datasets.templates import make_template
    from sftlab.inference.tokenizer_check import load_tokenizer
    from sftlab.weights.shards import Checkpoint

    measured, folder = build.plan.spec.measure.geometry, build.base_folder(base)
    assert measured is not None
    tokenizer = load_tokenizer(folder)
    encoder = Encoder(tokenizer, make_template(build.plan.spec.template, tokenizer, base), base)
    with Checkpoint.open(folder) as checkpoint:
        longest = checkpoint.config.get("max_position_embeddings")
    ids: list[tuple[int, ...]] = []
    labels: list[str] = []
    for name, step in build.plan.measured.geometry_sets.items():
        file = build.read(step, EXAMPLES)
        table: pa.Table = read_table(file, examples_schema()).slice(0, measured.prompts)
        for example in conversations_of(table, str(file)):
            prompt = tuple(encoder.encode_prompt(Conversation(example.turns[:-1], example.where)))
            if prompt and not (isinstance(longest, int) and len(prompt) > longest):
                ids.append(prompt)
                labels.append(name)
    return Prompts(ids, labels)


def _source(build: SurveyBuild, model: Model) -> ModelSource:
    base = str(build.base_folder(model.base))
    return ModelSource(base, None if model.tuned is None else str(build.path(model.tuned) / MODEL))


def _dtype(build: SurveyBuild, model: Model) -> str:
    from sftlab.inference.vllm_engine import checkpoint_dtype

    dtype = build.plan.spec.engine.dtype
    return checkpoint_dtype(str(build.base_folder(model.base))) if dtype == "auto" else dtype


def _commit(build: SurveyBuild, model: Model, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.hidden_geometry import geometry_schema

    step = build.plan.measured.geometries[model.name]
    folder = build.path(step)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=geometry_schema()), folder / FILE)
    build.commit(step)
