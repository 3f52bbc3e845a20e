"""Stage 10: the report page."""

from __future__ import annotations

from pathlib import Path

from sftlab.store.artifact import Store, write_text
from sftlab.study.build import Build
from sftlab.study.plan import Plan
from sftlab.study.stages.results import read_results

FILE = "report.html"


def build_report(build: Build) -> None:
    """Render the results as one self-contained page."""
    from sftlab.report.page import render

    write_text(build.path(build.plan.report) / FILE, render(read_results(build)))
    build.commit(build.plan.report)


def report_file(plan: Plan, store: Store) -> Path:
    return store.path(plan.report) / FILE
