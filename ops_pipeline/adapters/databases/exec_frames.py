"""The frames in which the Docker engine puts both outputs of a program on one connection, cut where they lie.

A frame is kind (1 = standard output, 2 = standard error), three zero bytes, length (big-endian), content (Engine API,
«Attach to a container», stream format).
"""

from __future__ import annotations

import struct

BUFFER_BYTES = 1024 * 1024
ERROR_TAIL_BYTES = 8192
_STDERR = 2
_HEADER = struct.Struct(">BxxxL")


class Pieces:
    """Received bytes, of which only standard output's are kept, cut out of the engine's frames where they lie."""

    def __init__(self) -> None:
        self._ready: list[memoryview] = []
        self.size = 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._fill = 0  # bytes of the buffer in use
        self._header = b""  # beginning of a header that was cut by the end of a receive
        self._kind = 0
        self._left = 0  # of the frame under way

    @property
    def cut(self) -> bool:
        """Whether the end of the stream would cut a frame."""
        return bool(self._left or self._header)

    def free(self) -> memoryview:
        """Where to receive."""
        if len(self._buffer) - self._fill < 64 * 1024:
            # What was received lives on as long as somebody's view of it.
            self._buffer, self._fill = memoryview(bytearray(BUFFER_BYTES)), 0
        return self._buffer[self._fill :]

    def arrived(self, count: int, errors: bytearray) -> None:
        """`count` bytes were received into `free()`: keep output; what is standard error goes to `errors`, bounded."""
        at, end = self._fill, self._fill + count
        buffer = self._buffer
        self._fill = end
        while at < end:
            if not self._left:
                needed = 8 - len(self._header)
                if not self._header and end - at >= 8:
                    self._kind, self._left = _HEADER.unpack_from(buffer, at)
                    at += 8
                else:
                    self._header += bytes(buffer[at : min(at + needed, end)])
                    at = min(at + needed, end)
                    if len(self._header) < 8:
                        return
                    self._kind, self._left = _HEADER.unpack(self._header)
                    self._header = b""
                continue
            length = min(self._left, end - at)
            piece = buffer[at : at + length]
            if self._kind == _STDERR:
                errors += piece
                del errors[:-ERROR_TAIL_BYTES]
            else:
                self._ready.append(piece)
                self.size += length
            at += length
            self._left -= length

    def arrived_bare(self, count: int) -> None:
        """`count` bytes of output were received into `free()`, in no frame."""
        self._ready.append(self._buffer[self._fill : self._fill + count])
        self._fill += count
        self.size += count

    def take(self, size: int) -> bytes:
        """Up to `size` bytes of output."""
        if size >= self.size:
            data = b"".join(self._ready)
            self._ready.clear()
            self.size = 0
            return data
        taken, left = [], size
        for index, piece in enumerate(self._ready):
            if len(piece) > left:
                taken.append(piece[:left])
                self._ready[: index + 1] = [piece[left:]]
                break
            taken.append(piece)
            left -= len(piece)
        self.size -= size
        return b"".join(taken)

    def line(self, ended: bool) -> bytes | None:
        """One line, or None while it has no end."""
        data = b"".join(self._ready)
        self._ready[:] = [memoryview(data)] if data else []
        at = data.find(b"\n")
        if at < 0:
            return self.take(len(data)) if ended else None
        return self.take(at + 1)
