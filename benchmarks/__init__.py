"""Figures as ratios: each measurement and its peer or limit run in the same process, one after the other."""
