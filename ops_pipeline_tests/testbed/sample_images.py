"""Small build contexts for tests, on the base image of the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GOOD = """\
FROM debian:bookworm-slim AS base
ARG VERSION=dev
FROM base AS test
RUN echo testing; grep -q hello /etc/debian_version || true
FROM base
COPY app.txt /srv/app.txt
USER 10001
EXPOSE 8000
HEALTHCHECK CMD ["true"]
"""

FAILING = """\
FROM debian:bookworm-slim AS base
FROM base AS test
RUN echo first words; echo 3 tests failed >&2; exit 7
FROM base
COPY app.txt /srv/app.txt
"""


def write_context(folder: Path, dockerfile: str = GOOD, files: Mapping[str, str] | None = None) -> Path:
    """Write a build context and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    for name, content in {"app.txt": "hello\n", **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def installed(name: str, version: str) -> dict[str, str]:
    """Files that a scanner takes for an installed Python package."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return {f"site-packages/{name}-{version}.dist-info/METADATA": metadata}
