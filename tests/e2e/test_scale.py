"""The short form of benchmarks/scale_sweep.py; that of scale_scoring.py stands in tests/ray/test_scoring.py."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.e2e.conftest import ROOT, Study, environment, tail

pytestmark = [pytest.mark.slow, pytest.mark.rest]


def test_trials_on_logical_gpus_all_finish_and_keep_their_engines_busy(finished: Study) -> None:
    words = [sys.executable, "-m", "benchmarks.scale_sweep", "--trials", "12", "--engines", "3"]
    words += ["--nodes", "2", "--seconds", "2", "--store", str(finished.store)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment(), cwd=ROOT)
    assert done.returncode == 0, tail(done)
    assert "12 trials of 2 models on 3 engines of 2 nodes" in done.stdout
    idle = re.search(r"idle while trials had still to come: ([\d.]+)%", done.stdout)
    assert idle is not None and float(idle[1]) < 50, done.stdout
    unserved = re.search(r"a trial waited while an engine was idle: (\d+) of (\d+)", done.stdout)
    assert unserved is not None and int(unserved[1]) == 0 < int(unserved[2]), done.stdout
