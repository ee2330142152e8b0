"""The one Dagster resource: everything a use case works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from ops_pipeline.defs.resources import build_platform, catalogue_path

if TYPE_CHECKING:
    from ops_pipeline.services.platform import Platform


class PlatformResource(dg.ConfigurableResource[None]):
    """Engines, edges, registry, scanner and ledger, as the catalogue names them.

    Built when a step first needs it, never when definitions are loaded: the SDKs behind it are slow to import. It has
    no configuration on purpose: whoever launches a run must not be able to choose another catalogue, with laxer gates.
    """

    def platform(self) -> Platform:
        """Build it. Raise BadInput when the catalogue cannot be used."""
        return build_platform(catalogue_path())
