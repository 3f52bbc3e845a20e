"""Builds a study up to its stage `tuned`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "tuned", *sys.argv[1:]])
