"""Builds a study up to its stage `facts`; submitted and called like run_study.py."""

from sftlab.cli import job

job("run", "--until", "facts")
