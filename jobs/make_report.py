"""Builds a study up to its stage `report`; submitted and called like run_study.py."""

from sftlab.cli.app import job

job("run", "--until", "report")
