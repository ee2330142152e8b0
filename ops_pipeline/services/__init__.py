"""Use cases over ports: one module per verb. No SDK, no Dagster, no adapter is imported here."""
