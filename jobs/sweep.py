"""Runs a sweep: ray job submit --working-dir . -- PYTHON jobs/sweep.py SWEEP.yaml [OPTIONS]."""

import sys

from sftlab.cli import main

main(["sweep", *sys.argv[1:]])
