"""Runs a study up to its stage `facts`: ray job submit --working-dir . -- python jobs/prepare_facts.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "facts", *sys.argv[1:]])
