"""Addresses in a catalogue: URLs, and containers in Azure Blob Storage. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ops_pipeline.catalogue.base import AzureStore
from ops_pipeline.catalogue.document import Path

_URL = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?(/\S*)?")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
WAYS = ("account_url", "connection_string", "sas_url")
"""How a container may be reached, one of them."""

Found = tuple[Path, str, tuple[Path, ...]]
"""Path, what is wrong, and the other parts it rests on."""


def url_findings(path: Path, url: str, *, https: bool = False) -> Iterator[Found]:
    """What is wrong with an http(s) URL; with `https` it must be a bare https://host[:port]."""
    if "@" in url.partition("//")[2].partition("/")[0]:
        yield path, "must hold no user name and no password", ()
    elif not _URL.fullmatch(url) or (https and not url.startswith("https://")):
        yield path, f"must be a URL, {'https' if https else 'http'}://host[:port]{'' if https else '/…'}", ()


def azure_findings(where: Path, azure: AzureStore) -> Iterator[Found]:
    """What is wrong with a container in Azure Blob Storage and the way to it."""
    ways = [way for way in WAYS if getattr(azure, way) is not None]
    if len(ways) != 1:
        has = " and ".join(f"`{way}`" for way in ways) or "none"
        yield where, f"needs exactly one of `account_url`, `connection_string` and `sas_url`; it has {has}", ()
    if not _CONTAINER.fullmatch(azure.container):
        yield (*where, "container"), "must be 3 to 63 lower-case letters, digits and single hyphens", ()
    if azure.account_url is not None:
        yield from url_findings((*where, "account_url"), azure.account_url, https=True)
    if re.search(r"[^A-Za-z0-9._/-]|(^|/)\.|\.(/|$)", azure.prefix):
        yield (*where, "prefix"), "must be parts of letters, digits, `.`, `_`, `-`, joined by `/`", ()
