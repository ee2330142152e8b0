"""Backups: what a set is, and the decisions about it (pure)."""
