"""Versions from git: what `git describe` says, as SemVer with the commit as build metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass

# SemVer 2.0, with the minor and patch numbers optional because people tag `v2`.
_TAG = re.compile(
    r"v(?P<major>0|[1-9]\d*)(\.(?P<minor>0|[1-9]\d*))?(\.(?P<patch>0|[1-9]\d*))?"
    r"(?P<pre>-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]+)?"
)
_LONG = re.compile(r"(?P<tag>v.*)-(?P<ahead>\d+)-g[0-9a-f]+")
SHORT_COMMIT = 7


@dataclass(frozen=True)
class Revision:
    """Where source code stands. `commit` is the full hash, "" without git."""

    commit: str = ""
    described: str = ""  # `git describe --tags --long --match 'v*'`, "" when there is no such tag
    dirty: bool = False  # files of the build context differ from the commit

    @property
    def known(self) -> bool:
        """Whether the commit alone tells what is built."""
        return bool(self.commit) and not self.dirty


def version_of(revision: Revision) -> str:
    """Given a revision, return its SemVer.

    On the tag `v1.4.0`: `1.4.0+3f2a1bc`; three commits later: `1.4.0+3.3f2a1bc`; without a usable tag:
    `0.0.0+3f2a1bc`; without git: `0.0.0+unknown`. Uncommitted changes append `.dirty`.
    """
    number, ahead = "0.0.0", 0
    if (long := _LONG.fullmatch(revision.described)) and (tag := _TAG.fullmatch(long["tag"])):
        number = f"{tag['major']}.{tag['minor'] or 0}.{tag['patch'] or 0}{tag['pre'] or ''}"
        ahead = int(long["ahead"])
    parts = [str(ahead)] if ahead else []
    parts.append(revision.commit[:SHORT_COMMIT] or "unknown")
    if revision.dirty:
        parts.append("dirty")
    return f"{number}+{'.'.join(parts)}"


def tag_of(version: str, revision: Revision, inputs_hash: str) -> str:
    """Return the registry tag of a version: '+' is not allowed there.

    When the commit does not tell what was built, the start of the inputs hash keeps two builds apart.
    """
    tag = version.replace("+", "-")
    return (tag if revision.known else f"{tag}-{inputs_hash[:8]}")[:128]
