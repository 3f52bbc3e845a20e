"""Runs a survey: ray job submit --working-dir . -- python jobs/survey.py --config SURVEY.yaml [OPTIONS]."""

from sftlab.cli.app import job

job("survey")
