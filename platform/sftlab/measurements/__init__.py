"""What is measured of a model: mastery, answers and first-token divergence."""
