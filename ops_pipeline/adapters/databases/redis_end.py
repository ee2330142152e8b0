"""The end of an RDB stream: its checksum, and the mark that diskless replication puts behind it.

The last byte before the checksum is 255; the checksum is the CRC-64 of all before it, 0 where it is switched off
(`rdbchecksum`). A stream of diskless replication goes on with a mark of 40 hexadecimal digits, which is cut off here
(redis-cli leaves it in what it writes to its standard output).
"""

from __future__ import annotations

from ops_pipeline.errors import StoreDamaged

MARK_BYTES = 40
_END_BYTES = 8 + MARK_BYTES
_DIGITS = frozenset(b"0123456789abcdef")
_crc = None


def crc64(data: bytes | memoryview, value: int = 0) -> int:
    """Redis's CRC-64 («Jones»), carried on from `value`."""
    global _crc
    if _crc is None:
        import anycrc  # here, because a process that takes no backup need not load it

        _crc = anycrc.CRC(width=64, poly=0xAD93D23594C935A9, init=0, refin=True, refout=True, xorout=0)
    return int(_crc.calc(data, value))


class RdbEnd:
    """Lets an RDB stream pass but for the mark at its end, and proves that the end is there and the checksum right."""

    def __init__(self, what: str) -> None:
        """`what` names the stream in messages."""
        self._what = what
        self._tail = b""
        self._crc = 0
        self.size = 0
        self.mark = False
        self.checksum = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, give those that are surely not the mark; up to 48 are kept back."""
        data = self._tail + data
        passed, self._tail = data[:-_END_BYTES], data[-_END_BYTES:]
        self._crc = crc64(passed, self._crc)
        self.size += len(passed)
        return passed

    def finish(self) -> bytes:
        """The stream ended: the last bytes that belong to it. Raise StoreDamaged when it is cut or wrong."""
        tail = self._tail
        for mark in (False, True):
            data = tail[: len(tail) - MARK_BYTES] if mark else tail
            if mark and (len(tail) < _END_BYTES or not _DIGITS.issuperset(tail[-MARK_BYTES:])):
                continue
            if len(data) < 8 or (len(data) > 8 and data[-9] != 0xFF):
                continue
            found = int.from_bytes(data[-8:], "little")
            if found in (0, crc64(data[:-8], self._crc)):
                self.mark, self.checksum = mark, found != 0
                self.size += len(data)
                return data
        raise StoreDamaged(f"{self._what} is cut off or damaged: it has no end with the right checksum")
