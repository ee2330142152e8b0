"""Which names of a tree a person means: patterns as in .gitignore, without its exceptions.

Standard library only and no other import: the courier runs this module, sent to it as text, inside a container.

A pattern without "/" fits a name at any depth; one with "/" counts from the top of the tree. "*" and "?" stay within
one name, "**" goes across. What fits a directory fits all that is below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class Patterns:
    """Compiled patterns; `fits` says whether a path, or a directory above it, is meant by any of them."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raise ValueError naming a pattern that can fit nothing."""
        parts = [_expression(pattern) for pattern in patterns]
        self._compiled = re.compile(b"|".join(parts) if parts else rb"(?!)", re.DOTALL)
        self._any = bool(parts)

    def fits(self, path: bytes) -> bool:
        """Whether `path` (relative, no leading "/") is meant. The tree itself (b"") never is."""
        return self._any and self._compiled.match(path) is not None


def _expression(pattern: str) -> bytes:
    trimmed = pattern.strip("/")
    if not trimmed or any(part in ("", ".", "..") for part in trimmed.split("/")) or "\0" in trimmed:
        raise ValueError(f"not a pattern of names below the tree: {pattern!r}")
    anchored = "/" in pattern.rstrip("/")
    raw = trimmed.encode("utf-8", "surrogateescape")
    expression = b"" if anchored else b"(?:.*/)?"
    for token in re.findall(rb"\*\*/|\*\*|\*|\?|\[[^]/]+\]|.", raw, re.DOTALL):
        if token == b"**/":
            expression += b"(?:.*/)?"
        elif token == b"**":
            expression += b".*"
        elif token == b"*":
            expression += b"[^/]*"
        elif token == b"?":
            expression += b"[^/]"
        elif len(token) > 2:
            inside = token[1:-1].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            expression += b"[^" + inside[1:] + b"]" if inside[:1] == b"!" and len(inside) > 1 else b"[" + inside + b"]"
        else:
            expression += re.escape(token)
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"not a pattern of names: {pattern!r} ({error})") from error
    return b"(?:" + expression + rb"(?:/.*)?\Z)"
