"""Stage 8: the mean input embedding of every training set and benchmark under a base, for their similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sftlab.analysis.similarity import Floats, cosine, mean_embedding
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.embedding_plan import Text
from sftlab.studies.survey.similarity import Similarities
from sftlab.studies.survey.stages.scores import read_questions
from sftlab.studies.survey.stages.similarity import MOST, first_examples

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "embedding.parquet"


def embedding_schema() -> pa.Schema:
    """Columns of FILE: a row a dimension; none where the texts have no tokens or the embedding was not found."""
    import pyarrow as pa

    return pa.schema([("mean", pa.float64())])


def build_embeddings(build: SurveyBuild) -> None:
    """Embed what is missing, a base at a time, whose embedding is read once."""
    plan = build.plan
    missing = {
        base: {text: step for text, step in steps.items() if build.missing(step)}
        for base, steps in plan.embeddings.items()
    }
    missing = {base: steps for base, steps in missing.items() if steps}
    if not missing:
        return
    with build.progress.bar("embeddings of sets and benchmarks") as bar:
        for number, (base, steps) in enumerate(missing.items(), start=1):
            vocabulary = _Vocabulary.of(build.base_folder(base))
            for text, step in steps.items():
                if build.missing(step):  # a few-shot form has the step of its benchmark
                    _commit(build, step, vocabulary.mean(_texts(build, text)))
            bar.update(number, len(missing), base)


def read_embedded(build: SurveyBuild) -> dict[str, Similarities]:
    """By base the similarities of the committed embeddings by set, size and benchmark."""
    return {base: _similarities(build, steps) for base, steps in build.plan.embeddings.items()}


def _similarities(build: SurveyBuild, steps: dict[Text, Step]) -> Similarities:
    means = {text: _read(build, step) for text, step in steps.items()}
    return {
        (data, size, benchmark): cosine(mean, means[benchmark, None])
        for (data, size), mean in means.items()
        if size is not None
        for benchmark, other in means
        if other is None
    }


def _texts(build: SurveyBuild, text: Text) -> list[str]:
    """The first examples of a set, or questions of a benchmark."""
    name, size = text
    if size is None:
        asked: list[str] = read_questions(build, name)["question"].to_pylist()
        return asked[:MOST]
    return first_examples(build, build.plan.drawn[(name,), size])


@dataclass(frozen=True)
class _Vocabulary:
    """The tokenizer of a base and its input embedding; None where no tensor has a name of one."""

    tokenizer: Any
    table: npt.NDArray[np.float32] | None
    centre: Floats

    @staticmethod
    def of(folder: Path) -> _Vocabulary:
        from sftlab.inference.tokenizer_check import input_embeddings, load_tokenizer
        from sftlab.weights.shards import Checkpoint

        with Checkpoint.open(folder) as checkpoint:
            names = input_embeddings(checkpoint)
            table = checkpoint.read(names[0]).float().numpy() if names else None
        centre = np.zeros(0) if table is None else table.mean(axis=0, dtype=np.float64)
        return _Vocabulary(load_tokenizer(folder), table, centre)

    def mean(self, texts: Sequence[str]) -> Floats | None:
        """As `mean_embedding`, of texts without the survey's template and without special tokens."""
        if self.table is None or not texts:
            return None
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return mean_embedding(ids, self.table, self.centre)


def _commit(build: SurveyBuild, step: Step, mean: Floats | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = build.path(step)
    folder.mkdir(parents=True, exist_ok=True)
    values = [] if mean is None else mean.tolist()
    pq.write_table(pa.table({"mean": values}, schema=embedding_schema()), folder / FILE)
    build.commit(step)


def _read(build: SurveyBuild, step: Step) -> Floats | None:
    mean = read_table(build.read(step, FILE), embedding_schema())["mean"].to_numpy()
    return np.asarray(mean, dtype=np.float64) if len(mean) else None
