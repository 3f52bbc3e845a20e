"""Builds a study up to its stage `evaluation`; submitted and called like run_study.py."""

from sftlab.cli import job

job("run", "--until", "evaluation")
