"""Trials on pools of engines and of training workers, with Ray Tune."""
