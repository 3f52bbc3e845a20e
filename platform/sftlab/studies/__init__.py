"""The studies, one folder each, and the loader of their files."""
