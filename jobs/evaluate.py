"""Runs a study up to its stage `evaluation`: ray job submit --working-dir . -- python jobs/evaluate.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "evaluation", *sys.argv[1:]])
