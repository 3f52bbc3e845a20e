"""Builds a study up to its stage `report`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "report", *sys.argv[1:]])
