"""Studies: one folder each; `load.py` and `tables.py` alone know all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.studies.knowledge.materialize import materialize
    from sftlab.studies.load import load_runtime, load_study, load_survey, load_sweep
    from sftlab.studies.tables import read_results

__all__ = ["load_runtime", "load_study", "load_survey", "load_sweep", "materialize", "read_results"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "knowledge.materialize": ["materialize"],
        "load": ["load_runtime", "load_study", "load_survey", "load_sweep"],
        "tables": ["read_results"],
    },
)
