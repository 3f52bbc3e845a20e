"""Runs a sweep: ray job submit --working-dir . -- python jobs/sweep.py --config SWEEP.yaml [OPTIONS]."""

from sftlab.cli.app import job

job("sweep")
