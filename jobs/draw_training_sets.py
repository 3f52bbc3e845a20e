"""Builds a study up to its stage `training-set`; submitted and called like run_study.py."""

from sftlab.cli import job

job("run", "--until", "training-set")
