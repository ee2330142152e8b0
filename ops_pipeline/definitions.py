"""Everything Dagster loads. No logic here: the catalogue decides the partitions, `defs/` holds the rest."""

from __future__ import annotations

import gc

import dagster as dg

# Loading the rest makes Python look through all of Dagster's own objects for garbage: 0.1 s, a fifth of the whole, for
# nothing. What is loaded by now stays until the process ends anyway.
gc.freeze()

from ops_pipeline.defs.all import build_definitions  # noqa: E402
from ops_pipeline.defs.platform import PlatformResource  # noqa: E402
from ops_pipeline.defs.resources import catalogue_path, load_catalogue  # noqa: E402

defs: dg.Definitions = build_definitions(load_catalogue(catalogue_path()), PlatformResource())
