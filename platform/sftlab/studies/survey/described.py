"""What a survey knows about its names, as `sftlab compare --about` takes it: from its file and what it measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sftlab.studies.survey.about import About, AboutBenchmark, AboutData, AboutModel
from sftlab.studies.survey.plan import SurveyPlan


def described(plan: SurveyPlan, questions: Mapping[str, int], lengths: Mapping[str, float]) -> About:
    """The facts about bases, sets and benchmarks; what the file's `about` says replaces what was measured.

    questions: of each benchmark that was asked. lengths: of each set, such as `mean_tokens`.
    """
    spec, given = plan.spec, plan.spec.about
    data, benchmarks = ({}, {}) if given is None else (given.data, given.benchmarks)
    asked = [*questions, *spec.benchmarks.judged]
    marked = any(found.main for found in benchmarks.values())
    parts = {part for found in benchmarks.values() for part in found.mean_of}
    return About(
        models={
            name: AboutModel(family=plan.family(name), language=plan.language(name))
            for name in spec.bases.names
        },
        data={
            name: data.get(name, AboutData()).model_copy(
                update={"length": _known(data, name, "length", lengths.get(name))}
            )
            for name in spec.data.names
        },
        benchmarks={
            name: benchmarks.get(name, AboutBenchmark()).model_copy(
                update={
                    "questions": _known(benchmarks, name, "questions", questions.get(name)),
                    "main": name in benchmarks and benchmarks[name].main
                    if marked
                    else name not in spec.benchmarks.few_shot and name not in parts,
                }
            )
            for name in asked
        },
        mixture="all",
        without="all-",
    )


def mean_tokens(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """By set the tokens of a response, a mean over the bases that scored it at its largest size.

    rows: as `measures.perplexity_schema`.
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["tokens"] is not None:
            found[row["data"]][row["size"]].append(row["tokens"])
    largest = {name: by_size[max(by_size)] for name, by_size in found.items()}
    return {name: sum(tokens) / len(tokens) for name, tokens in largest.items()}


def _known(given: Mapping[str, Any], name: str, field: str, measured: Any) -> Any:
    """What the file says about a name, else what was measured."""
    said = getattr(given[name], field) if name in given else None
    return measured if said is None else said
