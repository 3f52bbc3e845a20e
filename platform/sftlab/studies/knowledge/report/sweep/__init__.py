"""The report of a sweep over studies of knowledge."""
