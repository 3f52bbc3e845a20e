"""Runs a whole study: ray job submit --working-dir . -- python jobs/run_study.py --config STUDY.yaml [OPTIONS]."""

from sftlab.cli.app import job

job("run")
