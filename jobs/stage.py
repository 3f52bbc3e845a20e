"""Builds a study up to one stage: ray job submit --working-dir . -- python jobs/stage.py STAGE --config STUDY.yaml."""

from sftlab.cli.app import job

job("run", "--until", positional="STAGE ")
