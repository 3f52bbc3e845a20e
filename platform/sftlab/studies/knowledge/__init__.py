"""The study of knowledge: what fine-tuning does to facts that a model knows (Ye et al. 2025)."""
