"""Keep the memory of a few frames in the process instead of fetching it from the kernel again for every one.

glibc gives large blocks back as soon as they are free, so that every frame or photo faults all its pages in anew: on
a virtual machine that costs more than encrypting it. And it gives every thread an arena of its own, each of which keeps
what it once held. See mallopt(3).
"""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_SETTINGS = ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20), (_M_ARENA_MAX, 1))


@cache
def keep_freed_memory() -> bool:
    """For the whole process, once: blocks up to 32 MiB from one heap, which gives back what exceeds 64 MiB.

    Return whether the C library knows these settings; without them everything works the same, only slower.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) for name, value in _SETTINGS)
