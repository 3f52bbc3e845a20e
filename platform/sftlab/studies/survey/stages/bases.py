"""Stage 1: the bases of the pocket world, pre-trained on this machine's processors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sftlab.studies.survey.build import SurveyBuild

if TYPE_CHECKING:
    from sftlab.pocket.at_once import BaseTask


def build_bases(build: SurveyBuild) -> None:
    """Pre-train every base that is missing, several at once, each after the one that it continues."""
    from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
    from sftlab.pocket.at_once import pretrain_bases

    tasks = _tasks(build)
    runtime = build.runtime.pocket
    processes = runtime.bases or max(1, len(os.sched_getaffinity(0)) // runtime.base_threads)
    shares = dict.fromkeys(tasks, 0.0)
    with build.progress.bar("pre-training") as bar:

        def report(name: str, done: int, total: int, loss: float) -> None:
            shares[name] = done / total
            bar.update(sum(shares.values()), len(shares), f"{name}: step {done}/{total}, loss {loss:.3f}")

        def finished(name: str) -> None:
            folder = tasks[name].folder
            check_tokenizer(folder, load_tokenizer(folder), embedding_rows(folder))
            build.commit(build.plan.bases[name])

        pretrain_bases(tasks, processes, report, finished)


def _tasks(build: SurveyBuild) -> dict[str, BaseTask]:
    """The pre-training of every base that is missing, by name."""
    from sftlab.pocket.at_once import BaseTask

    plan, world = build.plan, build.plan.spec.world
    missing = [name for name, step in plan.bases.items() if build.missing(step)]
    tasks = {}
    for name in missing:
        base = plan.spec.bases.pocket[name]
        after = base.continues if base.continues in missing else None
        start = None
        if base.continues is not None:
            step = plan.bases[base.continues]
            start = build.path(step) / "model" if after else build.read(step, "model")
        folder = build.path(plan.bases[name]) / "model"
        task = (base, (world.seed, world.people), folder, build.runtime.pocket, start, after)
        tasks[name] = BaseTask(*task)
    return tasks
