"""Exporter of the edge: counts what HAProxy logged, one line a request, and shows it to Prometheus."""
