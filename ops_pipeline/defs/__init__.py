"""Dagster only: assets, checks, jobs, sensors. Each function is a few lines over a use case."""
