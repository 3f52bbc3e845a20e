"""The page of a table of scores: figures, tables and sections."""
