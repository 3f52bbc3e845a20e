"""Builds a study up to its stage `mastery`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "mastery", *sys.argv[1:]])
