"""Runs a study up to its stage `mastery`: ray job submit --working-dir . -- python jobs/score_mastery.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "mastery", *sys.argv[1:]])
