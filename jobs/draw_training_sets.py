"""Builds a study up to its stage `training-set`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "training-set", *sys.argv[1:]])
