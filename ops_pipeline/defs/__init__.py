"""Dagster only: assets, checks, jobs, sensors. Each function is a few lines over a use case.

Use cases are imported where they are called: definitions are loaded far more often than run, by every process, and
the use cases with what they need cost as much again.
"""
