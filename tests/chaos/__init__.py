"""Kills everything at random moments of a small study and compares what comes out with an undisturbed run."""
