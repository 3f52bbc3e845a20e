"""Runs a study up to its stage `change`: ray job submit --working-dir . -- python jobs/profile_changes.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "change", *sys.argv[1:]])
