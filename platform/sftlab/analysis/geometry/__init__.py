"""The geometry of points, such as hidden states of prompts or log-likelihood vectors of models: pure functions."""
