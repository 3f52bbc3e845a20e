"""Reading of configuration files: frozen models, documents, overrides and error messages."""
