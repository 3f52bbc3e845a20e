"""Runs a study up to its stage `report`: ray job submit --working-dir . -- python jobs/make_report.py STUDY.yaml."""

import sys

from sftlab.cli import main

main(["run", "--until", "report", *sys.argv[1:]])
