"""Fuzzing of every reader of what comes from outside; see `run.py` (`make fuzz`) and `test_fuzz.py`."""
