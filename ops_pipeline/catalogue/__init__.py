"""The catalogue `deploy/services.yaml`: the one file a user edits to bring their own application."""
