"""HTTP requests whose whole answer comes within a bounded time and size, however slowly the other side sends it."""

from __future__ import annotations

import ipaddress
import time
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

PIECE_BYTES = 1 << 18
MOST_BYTES = 256 << 20


class BoundedSession(requests.Session):
    """A session with one time-out for connecting, waiting and reading together. It never tries again by itself.

    A proxy is never asked for an address on this machine. Safe to share by threads.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """`url` is the base address of the one server that is asked."""
        super().__init__()
        self._seconds = timeout_seconds
        self.trust_env = not on_this_machine(url)
        # Packing megabytes of numbers costs both sides more time than sending them.
        self.headers["Accept-Encoding"] = "identity"

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        """Send and read the whole answer. Raise requests' exceptions: Timeout, ConnectionError and others."""
        deadline = time.monotonic() + self._seconds
        named["timeout"] = self._seconds
        named["stream"] = True
        response = super().request(*arguments, **named)
        pieces: list[bytes] = []
        size = 0
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise requests.exceptions.ReadTimeout(f"no whole answer within {self._seconds:g} s")
                # requests bounds only each single read: a server that sends a byte now and then would hold it for ever.
                socket = getattr(getattr(response.raw, "connection", None), "sock", None)
                if socket is not None:
                    socket.settimeout(left)
                piece = response.raw.read1(PIECE_BYTES)  # what has come, unlike `read`, which waits for more
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise requests.exceptions.ContentDecodingError(f"the answer is larger than {MOST_BYTES >> 20} MiB")
        except urllib3.exceptions.ReadTimeoutError as error:
            response.close()
            raise requests.exceptions.ReadTimeout(f"no whole answer within {self._seconds:g} s") from error
        except BaseException:
            response.close()
            raise
        response._content = b"".join(pieces)
        return response


def on_this_machine(url: str) -> bool:
    """Whether an address names this machine."""
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def words_of(error: BaseException) -> str:
    """What went wrong with a request, in a few words without Python's own."""
    inner: BaseException | None = error
    while inner is not None:
        timeouts = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
        if isinstance(inner, timeouts) and not isinstance(inner, urllib3.exceptions.NewConnectionError):
            return "no answer in time"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        inner = inner.__cause__ or inner.__context__
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
