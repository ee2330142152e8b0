"""ops_pipeline: a delivery control plane for small teams, built on Dagster."""
