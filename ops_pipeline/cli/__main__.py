"""`python -m ops_pipeline.cli` is `ops`."""

from ops_pipeline.cli import main

main()
