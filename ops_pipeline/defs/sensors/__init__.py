"""Sensors: what the control plane notices by itself."""
