"""The report of a study of knowledge."""
