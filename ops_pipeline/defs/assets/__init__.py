"""Assets: the durable nouns `image`, `sbom`, `scan_report` and `release`."""
