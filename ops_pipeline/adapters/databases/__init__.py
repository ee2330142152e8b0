"""Databases as data sources: each dumped, counted and restored by its own tools inside its own container."""
