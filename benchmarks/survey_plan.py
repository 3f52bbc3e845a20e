"""How long the plan of the paper's grid takes (1,070 models, 8 benchmarks and more), and how its memory grows.

    python -m benchmarks.survey_plan

Plans `jobs/configs/surveys/massive-sft.yaml` without a file of its models and data, as `sftlab survey --plan` does.
The reference is the same plan with two of its ten sets: time and memory a model must not grow.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sftlab.execution.preview import preview
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.studies.load import load_survey
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.estimate import totals
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import resolve

WANTED = 10.0  # seconds
SURVEY = Path(__file__).parents[1] / "jobs" / "configs" / "surveys" / "massive-sft.yaml"
FEW = ["runs.0.data=[alpaca,lima]"]


def measure(overrides: list[str]) -> None:
    """Plan in this process; prints seconds, models, steps, and the growth of its memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        spec = load_survey(SURVEY, overrides)
        build = SurveyBuild(SurveyPlan(spec, resolve(spec, store.root)), store, Runtime(), SilentProgress())
        steps = preview(build.plan, store, build.runtime)
        found = totals(build.plan, build.runtime.rates, lambda _: True)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, found.models, len(steps), (after - before) / 1024]))


def main() -> None:
    if len(sys.argv) > 1:
        measure(json.loads(sys.argv[1]))
        return
    rows = []
    for overrides in ([], FEW):
        command = [sys.executable, "-m", "benchmarks.survey_plan", json.dumps(overrides)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(found.splitlines()[-1]))
        seconds, models, steps, megabytes = rows[-1]
        print(
            f"{models:,} models, {steps:,} steps: {seconds:.1f} s, {megabytes:.0f} MB more memory", flush=True
        )
    (whole, models, _, memory), (part, fewer, _, less) = rows
    print(f"seconds a model, against the smaller plan: {whole / models / (part / fewer):.2f}")
    print(f"memory a model, against the smaller plan: {memory / models / max(less / fewer, 1e-9):.2f}")
    print(f"against the target of {WANTED:g} s: {whole / WANTED:.2f}")
    sys.exit(whole > WANTED)


if __name__ == "__main__":
    main()
