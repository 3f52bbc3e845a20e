"""What a survey costs around its work: 1,000 runs with training and engines that answer at once.

    python -m benchmarks.scale_survey [--runs 1000] [--short]

Ten pocket bases of 130,000 weights, ten training sets, full fine-tuning and LoRA, and five sizes: 1,000 runs and 1,010
models on four benchmarks of 20 questions. Fine-tuning copies the base with a little noise, in two groups; engines are
real actors, one process each, that answer without a model. All else is real: drawing, checks, commits, movements,
scores, results and the page. Pre-training comes before the clock starts. Printed are the seconds a run, in all and for
each stage as its bar shows it, the driver's processor time, its memory, and what a second call takes that finds
everything.
`--short` has two bases, two sets and one size: 8 runs. Exit code 1 where a model lacks a score; no rate is wanted.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from benchmarks import instant, scale_sweep
from benchmarks.scale_sweep import train_at_once
from sftlab.execution.progress import Bar, SilentProgress
from sftlab.execution.run import run_study
from sftlab.execution.runtime import Runtime
from sftlab.inference import evaluator
from sftlab.inference.engine import Completion, Floats, Prompt
from sftlab.inference.pool import EnginePool
from sftlab.pocket.skill_data import SETS
from sftlab.store.artifact import Store
from sftlab.studies.load import load_runtime, load_survey
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import resolve
from sftlab.training import side_by_side

BENCHMARKS = ("facts", "sums", "moods", "yes-no")
SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 128, "vocabulary": 400}
RUNTIME = Path(__file__).parents[1] / "jobs" / "configs" / "runtimes" / "laptop-2cpu.yaml"
LORA = {"lora": {"rank": 4, "alpha": 8}, "learning_rate": 3e-3}


class InstantEngine(instant.InstantEngine):
    """Answers with one word or another by the length of a prompt, and scores by that of the context."""

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        del max_tokens
        return [Completion(" yes" if len(prompt.token_ids) % 3 else " 7", 2) for prompt in prompts]

    def log_likelihoods(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Floats]:
        import numpy as np

        pairs = zip(contexts, continuations, strict=True)
        return [np.full(len(ids), -0.1 - len(context) % 7, np.float32) for context, ids in pairs]


@dataclass
class Stopwatch(SilentProgress):
    """Seconds of every bar, by its title."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        started = time.perf_counter()
        with super().bar(title) as bar:
            yield bar
        self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - started


def survey_of(bases: int, sets: int, sizes: int) -> dict[str, Any]:
    """The survey file: every combination, with two methods."""
    return {
        "name": "scale",
        "world": {"people": 24},
        "bases": {"pocket": {f"b{n}": {"scale": 0.002, "seed": n, "shape": SHAPE} for n in range(bases)}},
        "data": {"pocket": list(SETS)[:sets]},
        "benchmarks": {"pocket": list(BENCHMARKS), "questions": 20},
        "engine": {"dtype": "float32"},
        "sft": {"precision": "fp32", "batch_size": 8, "max_length": 128},
        "runs": [{"sizes": [20 * (n + 1) for n in range(sizes)], "methods": ["full", LORA]}],
    }


def build_of(spec: dict[str, Any], folder: Path, runtime: Runtime, progress: Stopwatch) -> SurveyBuild:
    file = folder / "survey.yaml"
    file.write_text(yaml.safe_dump(spec))
    survey, store = load_survey(file), Store(folder / "store")
    return SurveyBuild(SurveyPlan(survey, resolve(survey, store.root)), store, runtime, progress)


@contextmanager
def at_once() -> Iterator[None]:
    """Training and engines that take no time."""
    train = partial(side_by_side.train_side_by_side, train=train_at_once)
    pool = partial(EnginePool, engine=InstantEngine)
    with (
        mock.patch.object(side_by_side, "train_side_by_side", train),
        mock.patch.object(evaluator, "EnginePool", pool),
    ):
        yield


def measure(spec: dict[str, Any], folder: Path) -> int:
    """Build the survey and print what it took; returns how many scores lack."""
    import ray

    for module in (instant, scale_sweep):
        ray.cloudpickle.register_pickle_by_value(module)
    runtime = load_runtime(RUNTIME).model_copy(update={"track": False})
    run_study(build_of(spec, folder, runtime, Stopwatch()), until="questions")
    watch, cpu, started = Stopwatch(), time.process_time(), time.perf_counter()
    build = build_of(spec, folder, runtime, watch)
    with at_once():
        run_study(build)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    runs, models = len(build.plan.runs), len(build.plan.scored)
    steps = sum(1 for _ in build.plan.steps())
    print(f"{runs:,} runs, {models:,} models, {steps:,} steps: {seconds:.0f} s in all")
    print(f"  {1000 * seconds / runs:.0f} ms a run; driver's CPU time {1000 * cpu / runs:.0f} ms a run")
    for title, found in watch.seconds.items():
        print(f"  {title:<24} {found:6.1f} s   {1000 * found / runs:5.0f} ms a run")
    rest = seconds - sum(watch.seconds.values())
    print(f"  {'all without a bar':<24} {rest:6.1f} s   {1000 * rest / runs:5.0f} ms a run")
    print(f"  peak memory of the driver {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    again = time.perf_counter()
    run_study(build_of(spec, folder, runtime, Stopwatch()))
    print(f"  a second call, which finds everything: {time.perf_counter() - again:.1f} s")
    table = build.path(build.plan.results) / "scores.csv"
    return models * len(BENCHMARKS) - len(list(csv.DictReader(table.open(encoding="utf-8"))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="about so many: 20 for each base and size")
    parser.add_argument("--short", action="store_true", help="8 runs")
    options = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)
    bases = max(1, min(10, options.runs // 20))
    spec = survey_of(2, 2, 1) if options.short else survey_of(bases, 10, max(1, options.runs // (20 * bases)))
    with tempfile.TemporaryDirectory() as folder:
        lacking = measure(spec, Path(folder))
    if lacking:
        print(f"{lacking} scores lack")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
