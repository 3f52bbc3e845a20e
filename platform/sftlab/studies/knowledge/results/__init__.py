"""The result tables of studies and sweeps, and the choice of the recommended model."""
