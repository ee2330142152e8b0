"""Everything Dagster loads. No logic here: the catalogue decides the partitions, `defs/` holds the rest."""

from __future__ import annotations

from ops_pipeline.defs.all import build_definitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.resources import catalogue_path, load_catalogue

defs = build_definitions(load_catalogue(catalogue_path()), PlatformResource())
