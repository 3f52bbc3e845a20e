"""Builds a study up to its stage `evaluation`; submitted and called like run_study.py."""

from sftlab.cli.app import job

job("run", "--until", "evaluation")
