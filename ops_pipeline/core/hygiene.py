"""`image_hygiene`: what every image must keep to, whatever is in it."""

from __future__ import annotations

from dataclasses import dataclass

from ops_pipeline.core.image import ImageConfig

REQUIRED_LABELS = (
    "org.opencontainers.image.title",
    "org.opencontainers.image.version",
    "org.opencontainers.image.revision",
    "org.opencontainers.image.created",
)
_ROOT = ("", "0", "root")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class BrokenRule:
    """One rule an image breaks: its name and a sentence for people."""

    rule: str  # "size" | "user" | "healthcheck" | "labels"
    text: str

    def __str__(self) -> str:
        return self.text


def broken_rules(config: ImageConfig, size_budget_mb: int) -> tuple[BrokenRule, ...]:
    """Given an image's configuration and its budget in MB (10^6 bytes), return the rules it breaks, none if clean."""
    broken: list[BrokenRule] = []
    if config.size_bytes > size_budget_mb * MEGABYTE:
        size = config.size_bytes / MEGABYTE
        broken.append(BrokenRule("size", f"the image has {size:.0f} MB, its budget is {size_budget_mb} MB"))
    if config.user.split(":", 1)[0].strip() in _ROOT:
        broken.append(BrokenRule("user", "the image runs as root: add a USER line to its Dockerfile"))
    if not config.healthcheck or config.healthcheck[0].upper() == "NONE":
        broken.append(BrokenRule("healthcheck", "the image has no HEALTHCHECK"))
    if missing := [label for label in REQUIRED_LABELS if not config.labels.get(label)]:
        broken.append(BrokenRule("labels", f"the image lacks the label{'s' * (len(missing) > 1)} {', '.join(missing)}"))
    return tuple(broken)
