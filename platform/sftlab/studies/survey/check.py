"""Errors of a survey that are found before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

from sftlab.errors import UserError
from sftlab.execution.checks import check_base_model, check_paths, check_resources
from sftlab.execution.runtime import Runtime
from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
from sftlab.measurements.harness import require_harness
from sftlab.studies.survey.runs import is_selected, runs_of
from sftlab.studies.survey.spec import SurveySpec


def check(spec: SurveySpec, runtime: Runtime) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with the survey."""
    harness = spec.benchmarks.harness
    check_resources(runtime, dict.fromkeys(run.sft for run in runs_of(spec)))
    check_paths(
        {
            **{f"bases.folders.{name}.path": base.path for name, base in spec.bases.folders.items()},
            **{f"data.files.{name}.source": file.source for name, file in spec.data.files.items()},
            **{
                f"benchmarks.files.{name}.source": file.source for name, file in spec.benchmarks.files.items()
            },
            "benchmarks.harness.include": harness.include if harness is not None else None,
            **{
                f"benchmarks.judged.{name}.source": file.source
                for name, file in spec.benchmarks.judged.items()
            },
        }
    )
    if spec.restore is not None and not any(is_selected(spec.restore, run) for run in runs_of(spec)):
        raise UserError(
            "restore: none of the survey's runs has the bases, data, sizes and methods that it names; "
            "`sftlab survey FILE --plan` lists the runs."
        )
    if harness is not None:
        require_harness()
    for base in spec.data.draw.fit:
        if base not in spec.bases.names:
            raise UserError(
                f"{base!r} is no base of the survey",
                place="data.draw.fit",
                value=base,
                advice=f"the bases are {', '.join(spec.bases.names)}.",
            )


def check_bases(spec: SurveySpec, say: Callable[[str], None]) -> None:
    """Raises UserError where a base in a folder cannot be served, or not trained as its runs say.

    `say` reports what its tokenizer loses.
    """
    runs = runs_of(spec)
    for name, base in spec.bases.folders.items():
        check_base_model(base.path, spec.engine, [run.sft for run in runs if run.base == name])
        lost = check_tokenizer(base.path, load_tokenizer(base.path), embedding_rows(base.path), [])
        if lost:
            say(f"{base.path}: the tokenizer does not keep {', '.join(lost)}")
