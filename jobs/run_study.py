"""Runs a whole study: ray job submit --working-dir . -- PYTHON jobs/run_study.py STUDY.yaml [OPTIONS]."""

import sys

from sftlab.cli import main

main(["run", *sys.argv[1:]])
