"""Builds a study up to its stage `evaluation`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "evaluation", *sys.argv[1:]])
