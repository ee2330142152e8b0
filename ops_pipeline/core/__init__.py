"""Pure decisions: no I/O, no clock, no randomness, no Dagster, no SDK. Standard library only."""
