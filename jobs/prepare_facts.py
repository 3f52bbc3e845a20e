"""Builds a study up to its stage `facts`; submitted and called like run_study.py."""

from sftlab.cli.app import job

job("run", "--until", "facts")
