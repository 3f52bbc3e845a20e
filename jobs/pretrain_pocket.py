"""Builds a study up to its stage `model`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "model", *sys.argv[1:]])
