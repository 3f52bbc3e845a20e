"""Errors of a survey that are found before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime, check_store
from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
from sftlab.inference.vllm_engine import check_engine_runtime, checkpoint_dtype
from sftlab.studies.survey.runs import runs_of
from sftlab.studies.survey.spec import SurveySpec
from sftlab.training.spec import accumulation_steps, check_runtime, check_spec
from sftlab.weights.pairs import require_embeddings, tied_aliases
from sftlab.weights.shards import Checkpoint


def check(spec: SurveySpec, runtime: Runtime) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with the survey."""
    check_store(runtime)
    check_engine_runtime(runtime.engine)
    check_runtime(runtime.training)
    for sft in {run.sft.model_dump_json(): run.sft for run in runs_of(spec)}.values():
        check_spec(sft, runtime.training)
        accumulation_steps(sft, runtime.training)
    for base in spec.data.draw.fit:
        if base not in spec.bases.names:
            raise UserError(
                f"data.draw.fit: {base!r} is no base of the survey; the bases are {', '.join(spec.bases.names)}."
            )


def check_bases(spec: SurveySpec, say: Callable[[str], None]) -> None:
    """Raises UserError where a base in a folder cannot be served or trained; `say` reports what its tokenizer loses."""
    for base in spec.bases.folders.values():
        with Checkpoint.open(base.path) as checkpoint:
            require_embeddings(checkpoint)
            tied_aliases(checkpoint)
        if spec.engine.dtype == "auto":
            checkpoint_dtype(base.path)
        folder = Path(base.path)
        lost = check_tokenizer(str(folder), load_tokenizer(str(folder)), embedding_rows(str(folder)), [])
        if lost:
            say(f"{base.path}: the tokenizer does not keep {', '.join(lost)}")
