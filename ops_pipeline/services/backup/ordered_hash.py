"""One hash over pieces that many threads bring in any order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable


class OrderedHash:
    """SHA-256 over numbered pieces: the thread that brings the next one goes on with all that wait behind it.

    So the only serial work of a stream needs no thread of its own, and no thread waits for it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[bytes, Callable[[], None] | None]] = {}
        self._next = 0
        self._busy = False

    def feed(self, index: int, data: bytes, hashed: Callable[[], None] | None = None) -> None:
        """Bring piece `index`; `hashed` is called, by whichever thread, when it is part of the hash."""
        with self._lock:
            self._waiting[index] = (data, hashed)
            if self._busy:
                return
            self._busy = True
        del data, hashed
        while True:
            with self._lock:
                found = self._waiting.pop(self._next, None)
                if found is None:
                    self._busy = False
                    return
                self._next += 1
            self._hash.update(found[0])
            after = found[1]
            del found
            if after is not None:
                after()

    def hexdigest(self) -> str:
        """Of all pieces from 0 on; ask when all were fed."""
        return self._hash.hexdigest()
