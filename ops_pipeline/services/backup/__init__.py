"""Backups: taking, proving, keeping and restoring sets."""
