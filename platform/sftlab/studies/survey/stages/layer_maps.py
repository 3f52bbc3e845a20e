"""Layer maps in stage 6: which models are made of a base and a tuned model, and what is kept of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.analysis.layer_maps import LayerSwap, layer_swaps
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.weights.edits import TunedLayers
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.measurement import Measurement

FILE = "layer-map.parquet"


def layer_map_schema() -> pa.Schema:
    """Columns of FILE: the score of each swap at each question; null where it was not asked.

    kind, part: of `analysis.layer_maps.LayerSwap`; layers: of the model.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("kind", pa.string()),
            ("part", pa.int32()),
            ("layers", pa.int32()),
            ("benchmark", pa.string()),
            ("question_id", pa.string()),
            ("score", pa.float64()),
        ]
    )


class LayerAnswers:
    """The swaps of one tuned model, and the answers of those that are finished.

    Attributes:
        swaps: of each swap its tensors, and its answers to each benchmark by the name of their file.
    """

    def __init__(self, build: SurveyBuild, model: Model, questions: Mapping[str, pa.Table]) -> None:
        from sftlab.measurements.benchmarks import BenchmarkAnswers

        spec, measured = build.plan.spec, build.plan.spec.measure.layer_maps
        assert measured is not None and model.tuned is not None
        base, tuned = str(build.base_folder(model.base)), str(build.path(model.tuned) / MODEL)
        self.build, self.step, self.layers = build, build.plan.measured.layer_maps[model.name], _layers(base)
        self.files = {f"{name}.parquet": name for name in build.plan.measured.questions}
        measurements: dict[str, Measurement] = {
            file: BenchmarkAnswers(
                questions[name].slice(0, measured.questions), spec.template, build.plan.max_tokens(name)
            )
            for file, name in self.files.items()
        }
        self.swaps = {
            swap: (
                ModelSource(base, tuned, TunedLayers(swap.tuned(self.layers), swap.outside)),
                measurements,
            )
            for swap in layer_swaps(self.layers, measured.cumulative)
        }
        self.answers: dict[LayerSwap, dict[str, Path]] = {}

    def finished(self, swap: LayerSwap, file: Callable[[str], str], folder: Path) -> None:
        """Note the answers of a swap in `folder`, where each file has another name; after the last one, commit."""
        self.answers[swap] = {name: folder / file(name) for name in self.files}
        if len(self.answers) == len(self.swaps):
            self._commit()

    def _commit(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [row for swap in self.swaps for row in self._rows(swap)]
        folder = self.build.path(self.step)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=layer_map_schema()), folder / FILE)
        self.build.commit(self.step)

    def _rows(self, swap: LayerSwap) -> list[dict[str, Any]]:
        from sftlab.measurements.benchmarks import benchmark_answer_schema

        rows: list[dict[str, Any]] = []
        for file, path in self.answers[swap].items():
            head = {
                "kind": swap.kind,
                "part": swap.part,
                "layers": self.layers,
                "benchmark": self.files[file],
            }
            answers = read_table(path, benchmark_answer_schema()).select(["question_id", "score"])
            rows += [{**head, **row} for row in answers.to_pylist()]
        return rows


def read_layer_map(build: SurveyBuild, model: Model) -> list[dict[str, Any]]:
    """The committed scores of the swaps of a model."""
    file = build.read(build.plan.measured.layer_maps[model.name], FILE)
    rows: list[dict[str, Any]] = read_table(file, layer_map_schema()).to_pylist()
    return rows


def _layers(folder: str) -> int:
    from sftlab.weights.pairs import layer_count
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(folder) as checkpoint:
        return layer_count(checkpoint)
