"""What RDB files put into strings: LZF compression, and groups of strings in no order."""

from __future__ import annotations


def unpacked(data: bytes, length: int) -> bytes:
    """Given LZF bytes and the length they unpack to, return the plain bytes. Raise ValueError, IndexError."""
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        size = control >> 5
        if size == 7:
            size += data[at]
            at += 1
        begin = len(out) - ((control & 31) << 8) - data[at] - 1
        at += 1
        if begin < 0:
            raise ValueError
        for number in range(begin, begin + size + 2):
            out.append(out[number])
    if len(out) != length:
        raise ValueError
    return bytes(out)


def groups(value: bytes, strings: int) -> list[bytes]:
    """Given a whole value of a count and groups of strings, return the groups' bytes."""
    walker = _Slices(value)
    count = walker.length()
    found = []
    for _ in range(count):
        begin = walker.at
        for _ in range(strings):
            walker.string()
        found.append(value[begin : walker.at])
    return found


class _Slices:
    """Steps over lengths and strings of bytes that were walked before, so that nothing is checked again."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def length(self) -> int:
        first = self._data[self.at]
        if first < 0x40 or first >= 0xC0:
            self.at += 1
            return first & 0x3F
        size = 2 if first < 0x80 else 5 if first == 0x80 else 9
        data = self._data[self.at : self.at + size]
        self.at += size
        return (first & 0x3F) << 8 | data[1] if size == 2 else int.from_bytes(data[1:], "big")

    def string(self) -> None:
        special = self._data[self.at] >= 0xC0
        size = self.length()
        if special and size == 3:
            size = self.length()
            self.length()
        elif special:
            size = 1 << size
        self.at += size
