"""Whether a directory can be exchanged as a whole: not when it is mounted anywhere."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mounted_somewhere(root: bytes) -> bool:
    """Whether the directory `root` (absolute, without links) or one below it is the root of a mount in any container.

    Such a directory must keep its inode: whoever mounted it would go on with the old one. Read from
    /proc/<pid>/mountinfo (proc(5)), once per mount namespace; namespaces we may not look into are passed over.
    """
    own = _mounts(Path("/proc/self/mountinfo"))
    above = [mount for mount in own if root == mount[2] or root.startswith(mount[2].rstrip(b"/") + b"/")]
    if not above:
        return False
    device, inner, point = max(above, key=lambda mount: len(mount[2]))
    if point == root:
        return True
    place = inner.rstrip(b"/") + root[len(point.rstrip(b"/")) :]
    seen = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            namespace = (folder / "ns" / "mnt").readlink()
            if namespace in seen:
                continue
            seen.add(namespace)
            for other, top, _ in _mounts(folder / "mountinfo"):
                if other == device and (top == place or top.startswith(place + b"/")):
                    return True
        except OSError:
            continue
    return False


def _mounts(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    """Device, directory of the file system that is mounted, where."""
    mounts = []
    for line in path.read_bytes().splitlines():
        fields = line.split(b" ")
        mounts.append((fields[2], _plain(fields[3]), _plain(fields[4])))
    return mounts


def _plain(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)
