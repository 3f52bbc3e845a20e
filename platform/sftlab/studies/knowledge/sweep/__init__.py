"""Sweeps over studies of knowledge: files, trials, costs, runs and results."""
