"""Programs that measure what README and docs claim, each against a named reference."""
