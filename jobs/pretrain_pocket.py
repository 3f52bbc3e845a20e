"""Runs a study up to its stage `model`: ray job submit --working-dir . -- python jobs/pretrain_pocket.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "model", *sys.argv[1:]])
