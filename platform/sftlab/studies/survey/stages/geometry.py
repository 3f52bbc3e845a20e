"""Stage 7: geometry of the hidden states of prompts, of base models and of models tuned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.studies.survey.stages.drawn import FILE as EXAMPLES
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

FILE, PICTURE = "geometry.parquet", "picture.parquet"


@dataclass(frozen=True)
class Prompts:
    """Token ids of prompts, and the set that each is from."""

    ids: Sequence[tuple[int, ...]]
    labels: Sequence[str]


@dataclass(frozen=True)
class _Job:
    """One table of one model: the numbers of its layers, or its last layer in the plane."""

    model: Model
    step: Step
    picture: bool

    @property
    def method(self) -> str:
        return "draw" if self.picture else "measure"


def build_geometry(build: SurveyBuild) -> None:
    """Measure and draw every model that is missing, as many at a time as there are engines."""
    import ray

    from sftlab.inference.actors import actor_options, result
    from sftlab.measurements.hidden_geometry import GeometryWorker

    missing = _missing(build)
    if not missing:
        return
    runtime = build.runtime.evaluation_engine
    worker = ray.remote(GeometryWorker).options(**actor_options(runtime))
    idle: list[Any] = [worker.remote(runtime) for _ in range(min(runtime.engines, len(missing)))]
    prompts = {base: _prompts(build, base) for base in dict.fromkeys(job.model.base for job in missing)}
    running: dict[Any, tuple[Any, _Job]] = {}
    queue = iter(missing)
    with build.progress.bar("geometry of hidden states") as bar:
        for done in range(len(missing)):
            while idle and (job := next(queue, None)) is not None:
                actor, asked = idle.pop(), prompts[job.model.base]
                source, dtype = _source(build, job.model), _dtype(build, job.model)
                call = getattr(actor, job.method)
                running[call.remote(source, dtype, asked.ids, asked.labels)] = (actor, job)
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, job = running.pop(ready)
            _commit(build, job, result(ready))
            idle.append(actor)
            bar.update(done + 1, len(missing), job.model.name)
    for actor in idle:
        ray.kill(actor)


def _missing(build: SurveyBuild) -> list[_Job]:
    measured = build.plan.measured
    return [
        _Job(model, step, picture)
        for picture, steps in ((False, measured.geometries), (True, measured.state_maps))
        for model in build.plan.models
        if (step := steps.get(model.name)) is not None and build.missing(step)
    ]


def read_geometry(build: SurveyBuild, model: Model) -> list[dict[str, Any]]:
    """The committed geometry of a model, a row a layer."""
    from sftlab.measurements.hidden_geometry import geometry_schema

    file = build.read(build.plan.measured.geometries[model.name], FILE)
    rows: list[dict[str, Any]] = read_table(file, geometry_schema()).to_pylist()
    return rows


def read_state_map(build: SurveyBuild, model: Model) -> list[dict[str, Any]]:
    """The committed states of the last layer of a model in the plane, a row a prompt."""
    from sftlab.measurements.hidden_geometry import state_map_schema

    file = build.read(build.plan.measured.state_maps[model.name], PICTURE)
    rows: list[dict[str, Any]] = read_table(file, state_map_schema()).to_pylist()
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


def _commit(build: SurveyBuild, job: _Job, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.hidden_geometry import geometry_schema, state_map_schema

    name, schema = (PICTURE, state_map_schema()) if job.picture else (FILE, geometry_schema())
    folder = build.path(job.step)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / name)
    build.commit(job.step)
