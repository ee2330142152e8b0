"""Media objects: their keys, and the lists that say which of them a set needs.

    ops-references 1
    <address> <stored size> <stored SHA-256>
    …
    end <number of lines between>

A reference list is stored unsealed: addresses are keyed and tell nothing, so whoever checks or clears away needs no
identity. An object may be named more than once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

REFERENCES_START = b"ops-references 1\n"
_ADDRESS = re.compile(r"[0-9a-f]{64}(-[0-9a-z]{1,40})?")
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST = 1 << 50


@dataclass(frozen=True)
class MediaReference:
    """One media object. `address` is the content's keyed name, with "-…" when that name was condemned before."""

    address: str
    size: int  # as stored
    sha256: str  # as stored

    @property
    def key(self) -> str:
        """Key in `vault.media`; also the identity bound into its frames."""
        return media_key(self.address)


def media_key(address: str) -> str:
    """`media/<2 hex>/<address>`."""
    return f"media/{address[:2]}/{address}"


def address_of(key: str) -> str:
    """Address in a key of `vault.media`; "" when the key is no media object's."""
    address = key.rpartition("/")[2]
    return address if _ADDRESS.fullmatch(address) and media_key(address) == key else ""


def check_reference(address: object, size: object, sha256: object) -> None:
    """Raise ValueError when these are no reference."""
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise ValueError("an address of a media object is none")
    if type(size) is not int or not 0 < size < _MOST:
        raise ValueError("a media object has an impossible size")
    if not isinstance(sha256, str) or not _HEX.fullmatch(sha256):
        raise ValueError("a hash of a media object is none")


def reference_line(reference: MediaReference) -> bytes:
    """One line of a reference list."""
    return f"{reference.address} {reference.size} {reference.sha256}\n".encode("ascii")


def references_end(count: int) -> bytes:
    """Last line of a reference list."""
    return f"end {count}\n".encode("ascii")


def read_references(chunks: Iterable[bytes]) -> Iterator[MediaReference]:
    """Given the bytes of a reference list, give its lines. Raise ValueError when it is cut, changed or none."""
    rest, number, ended, begun = b"", 0, False, False
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > 512:
            raise ValueError("a line is too long")
        for line in lines:
            if ended:
                raise ValueError("it goes on after its end")
            if not begun:
                if line + b"\n" != REFERENCES_START:
                    raise ValueError("it does not begin like a reference list")
                begun = True
                continue
            fields = line.decode("ascii", "replace").split(" ")
            if fields[0] == "end":
                if fields[1:] != [str(number)]:
                    raise ValueError("its end does not fit what came before")
                ended = True
                continue
            if len(fields) != 3 or not fields[1].isdecimal() or len(fields[1]) > 20:
                raise ValueError(f"line {number + 2} is no reference")
            address, size, sha256 = fields[0], int(fields[1]), fields[2]
            check_reference(address, size, sha256)
            number += 1
            yield MediaReference(address, size, sha256)
    if not ended or rest:
        raise ValueError("it is cut off")
