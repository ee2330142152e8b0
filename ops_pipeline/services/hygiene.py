"""`image_hygiene` for a recorded image, by the budget of its service."""

from __future__ import annotations

from ops_pipeline.catalogue.model import Service
from ops_pipeline.core.hygiene import broken_rules
from ops_pipeline.core.image import Image


def image_problems(image: Image, service: Service) -> tuple[str, ...]:
    """One plain sentence per rule the image breaks; empty when it keeps to all."""
    return tuple(rule.text for rule in broken_rules(image.config, service.size_budget_mb))
