"""sftlab: what supervised fine-tuning does to what a language model knows, and how to undo the harm."""

__version__ = "0.1.0"
