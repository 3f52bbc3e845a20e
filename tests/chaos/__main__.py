"""python -m tests.chaos --seed 0 --kills 60: prints what it does; exits with 1 where something was lost or wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.chaos.outcome import ChaosError
from tests.chaos.story import chaos


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=0, help="the same seed strikes the same blows")
    options.add_argument("--kills", type=int, default=60, help="number of SIGKILLs, spread over all stages")
    options.add_argument("--no-faults", action="store_true", help="kills alone, without the named faults")
    options.add_argument(
        "--plain", action="store_true", help="the study and the blows of tests/e2e/test_nodes.py"
    )
    options.add_argument("--folder", type=Path, help="where stores and logs go; kept if something is wrong")
    given = options.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        say = partial(print, flush=True)
        chaos(given.seed, given.kills, folder, faults=not given.no_faults, say=say, plain=given.plain)
    except ChaosError as error:
        print(f"FAILED with seed {given.seed}: {error}\nlogs: {folder}", flush=True)
        return 1
    return 0


sys.exit(main())
