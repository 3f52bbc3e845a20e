"""Runs a study up to its stage `training-set`: ray job submit --working-dir . -- python jobs/draw_training_sets.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "training-set", *sys.argv[1:]])
