"""Errors of a survey that are found before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sftlab.config.leaves import flat
from sftlab.datasets.benchmark_file import read_benchmark
from sftlab.datasets.code_file import read_problems
from sftlab.datasets.source import open_data
from sftlab.errors import UserError, within
from sftlab.execution.checks import (
    check_base_model,
    check_keep,
    check_paths,
    check_pocket_model,
    check_resources,
)
from sftlab.execution.runtime import Runtime
from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
from sftlab.measurements.harness import require_harness, require_tasks
from sftlab.measurements.sandbox import require_sandbox
from sftlab.studies.survey.runs import Run, is_selected, runs_of
from sftlab.studies.survey.spec import SurveySpec
from sftlab.training.spec import SFTSpec

ROWS = 200  # of an instruction set that are read before anything is computed


def check(spec: SurveySpec, runtime: Runtime) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with the survey."""
    harness = spec.benchmarks.harness
    check_resources(runtime, dict.fromkeys(run.sft for run in runs_of(spec)))
    check_rows(spec)
    check_keep(runtime, ("full", "delta"))
    check_paths(
        {
            **{f"bases.folders.{name}.path": base.path for name, base in spec.bases.folders.items()},
            **{f"data.files.{name}.source": file.source for name, file in spec.data.files.items()},
            **{
                f"benchmarks.files.{name}.source": file.source for name, file in spec.benchmarks.files.items()
            },
            "benchmarks.harness.include": harness.include if harness is not None else None,
            **{
                f"benchmarks.code.files.{name}.source": file.source
                for name, file in spec.benchmarks.programs.items()
            },
            **{
                f"benchmarks.judged.{name}.source": file.source
                for name, file in spec.benchmarks.judged.items()
            },
        }
    )
    if spec.restore is not None and not any(is_selected(spec.restore, run) for run in runs_of(spec)):
        raise UserError(
            "none of the survey's runs has the bases, data, sizes and methods that it names",
            place="restore",
            advice="`sftlab survey FILE --plan` lists the runs.",
        )
    if harness is not None:
        require_harness()
    if spec.benchmarks.code is not None:
        if not spec.benchmarks.code.allow:
            raise UserError(
                "runs programs that models write, in a sandbox",
                place="benchmarks.code",
                advice="set `benchmarks.code.allow: true`, or leave `code` out.",
            )
        require_sandbox()
    for base in spec.data.draw.fit:
        if base not in spec.bases.names:
            raise UserError(
                f"{base!r} is no base of the survey",
                place="data.draw.fit",
                value=base,
                advice=f"the bases are {', '.join(spec.bases.names)}.",
            )


def check_rows(spec: SurveySpec) -> None:
    """Raises UserError where two models would have one row in the table of scores, or one name."""
    seen: dict[tuple[object, ...], Run] = {}
    named: dict[str, Run] = {}
    for run in runs_of(spec):
        other = named.setdefault(run.name, run)
        if (other.base, other.data, other.method) != (run.base, run.data, run.method):
            raise UserError(
                f"two runs have the name {run.name}: base {other.base} on {other.data} ({other.method}), and base "
                f"{run.base} on {run.data} ({run.method})",
                place="runs",
                value=run.name,
                advice="give one of the methods another `label`, or rename a base or a set.",
            )
        for epoch in run.epochs:
            row = (run.base, run.data, run.method, run.size, run.sft.schedule, epoch)
            other = seen.setdefault(row, run)
            if other is not run:
                found = differing(
                    other.sft.model_dump(exclude_none=True), run.sft.model_dump(exclude_none=True)
                )
                raise UserError(
                    f"two runs of base {run.base} on {run.data} ({run.method}, size {run.size:,}, epoch {epoch}) "
                    f"differ only in {found}, and the table of scores has one row for both",
                    place="runs",
                    value=found,
                    advice="give the method of one of them a `label`, or put it into another survey; what both have "
                    "in common is built once.",
                )


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The fields in which two settings differ, with their values: 'sft.seed (0 and 1)'."""
    left, right = dict(flat({"sft": one})), dict(flat({"sft": other}))
    names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    return ", ".join(f"{name} ({left.get(name)} and {right.get(name)})" for name in names)


def require_report(spec: SurveySpec) -> None:
    """Raises UserError where the report would have nothing to compare: before anything is computed."""
    grids: dict[tuple[object, ...], set[tuple[str, str]]] = {}
    for run in runs_of(spec):
        if len(run.members) == 1:
            grids.setdefault((run.method, run.size, run.sft.schedule), set()).add((run.base, run.data))
    for found in grids.values():
        if len({base for base, _ in found}) > 1 and len({data for _, data in found}) > 1:
            return
    raise UserError(
        "has no runs that the report could compare",
        place="runs",
        expected="two or more bases on two or more single sets, trained with one method, size and schedule",
        advice="add some, or build the scores alone with --until survey-results.",
    )


def check_files(spec: SurveySpec, reads: Collection[str]) -> None:
    """Raises UserError naming file, row and field for what a stage would refuse of the files of a survey.

    Benchmarks are read whole, and the first ROWS rows of instruction data. `reads`: what is still to be read, `data`
    and `benchmarks`.
    """
    if "benchmarks" in reads:
        for benchmark in spec.benchmarks.files.values():
            read_benchmark(benchmark)
        for problems in spec.benchmarks.programs.values():
            read_problems(problems.source, problems.questions, problems.seed)
        if spec.benchmarks.harness is not None:
            require_tasks(spec.benchmarks.harness)
    if "data" in reads:
        used = {name for run in runs_of(spec) for name in run.members}
        for name, file in spec.data.files.items():
            if name in used:
                for _ in open_data(file).conversations(ROWS):
                    pass


def check_bases(spec: SurveySpec, on_cpu: bool, say: Callable[[str], None]) -> None:
    """Raises UserError where a base cannot be served, or not trained as its runs say.

    on_cpu: whether engines without GPUs serve the bases. `say` reports what a tokenizer loses.
    """
    trained: dict[str, list[SFTSpec]] = {name: [] for name in spec.bases.names}
    restored = dict.fromkeys(spec.bases.names, False)
    for run in runs_of(spec):
        trained[run.base].append(run.sft)
        restored[run.base] |= spec.restore is not None and is_selected(spec.restore, run)
    ladders = {name: spec.restore if restored[name] else None for name in restored}
    for name in spec.bases.names:
        folder = spec.bases.folders.get(name)
        try:
            if folder is None:
                check_pocket_model(spec.bases.shape(name), trained[name], ladders[name], on_cpu)
            else:
                check_base_model(folder.path, spec.engine, trained[name], ladders[name], on_cpu)
        except UserError as error:
            raise within(f"base {name}", error) from error
    for base in spec.bases.folders.values():
        lost = check_tokenizer(base.path, load_tokenizer(base.path), embedding_rows(base.path), [])
        if lost:
            say(f"{base.path}: the tokenizer does not keep {', '.join(lost)}")
