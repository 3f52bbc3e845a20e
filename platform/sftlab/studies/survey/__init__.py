"""Surveys: base models x training sets x methods x sizes x epochs, scored on benchmarks (Harada et al. 2025)."""
