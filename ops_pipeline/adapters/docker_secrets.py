"""Secrets for one container: files of mode 0400 that belong to the image's user, as an archive for the engine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

FOLDER = "/run/secrets"


def secrets_archive(secrets: Mapping[str, str], uid: int, gid: int) -> bytes:
    """A tar archive to unpack in FOLDER: each file 0400 of `uid`:`gid`. The folder stays root's: nothing is added."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, value in sorted(secrets.items()):
            data = value.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(data), 0o400, uid, gid
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def plain_ids(user: str) -> tuple[int, int] | None:
    """Given an image's USER, return uid and gid when it says both by itself; None = its files have to be asked."""
    name, _, group = user.partition(":")
    if name in ("", "root") and not group:
        return 0, 0
    return (int(name), int(group)) if name.isdigit() and group.isdigit() else None


def user_ids(user: str, passwd: str, group: str) -> tuple[int, int]:
    """Given an image's USER and its /etc/passwd and /etc/group, return uid and gid. Raise ValueError if unknown."""
    name, _, group_name = user.partition(":")
    uid, gid = _passwd_entry(name or "root", passwd)
    if group_name:
        gid = _group_entry(group_name, group)
    return uid, gid


def _passwd_entry(name: str, passwd: str) -> tuple[int, int]:
    if name == "root":
        return 0, 0
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and name in (fields[0], fields[2]):
            return int(fields[2]), int(fields[3])
    if name.isdigit():
        return int(name), 0
    raise ValueError(f"the image's /etc/passwd has no user {name!r}")


def _group_entry(name: str, group: str) -> int:
    if name.isdigit():
        return int(name)
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name:
            return int(fields[2])
    raise ValueError(f"the image's /etc/group has no group {name!r}")
