"""The pocket worlds that tests look at: the embedded default, and that of the smallest study."""

from __future__ import annotations

from pathlib import Path

from sftlab.pocket.spec import PocketSpec
from sftlab.studies.load import load_study

POCKET = PocketSpec()
_tiny = load_study(Path(__file__).parents[2] / "jobs" / "configs" / "tiny.yaml").pocket
assert _tiny is not None
TINY = _tiny
