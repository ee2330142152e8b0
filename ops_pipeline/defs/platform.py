"""The one Dagster resource: everything a use case works with."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from ops_pipeline.defs.resources import build_platform
from ops_pipeline.services.platform import Platform


class PlatformResource(dg.ConfigurableResource[None]):
    """Engines, edges, registry, scanner and ledger, as the catalogue names them.

    Built when a step first needs it, never when definitions are loaded: the SDKs behind it are slow to import.
    """

    catalogue: str = Field(description="Path of the catalogue file")

    def platform(self) -> Platform:
        """Build it. Raise BadInput when the catalogue cannot be used."""
        return build_platform(Path(self.catalogue))
