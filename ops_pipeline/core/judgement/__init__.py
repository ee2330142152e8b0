"""Judging a release by what users get: anytime-valid sequential tests on counters, pure and without a clock."""
