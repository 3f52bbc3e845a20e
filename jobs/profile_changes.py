"""Builds a study up to its stage `change`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "change", *sys.argv[1:]])
