"""The stages of a study of knowledge, one module each."""
