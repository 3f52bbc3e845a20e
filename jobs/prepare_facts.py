"""Builds a study up to its stage `facts`; submitted and called like run_study.py."""

import sys

from sftlab.cli import main

main(["run", "--until", "facts", *sys.argv[1:]])
