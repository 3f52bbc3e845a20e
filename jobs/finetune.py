"""Runs a study up to its stage `tuned`: ray job submit --working-dir . -- python jobs/finetune.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "tuned", *sys.argv[1:]])
