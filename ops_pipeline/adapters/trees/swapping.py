"""Putting a restored tree in the place of the live one and back, by renames only.

Two ways. *Whole*: the live directory as such is exchanged with the restored one (renameat2(2), one step). *Inside*:
where the directory itself cannot be renamed or must not be (the root of a mount, as a Docker volume is, and a
directory that containers have mounted: they would go on with the old one), every name in it is exchanged.

What belongs to a restore with a token lies in one directory, the live one (inside) or its parent (whole):
`….ops-restore-<token>/tree` what was restored, `….ops-hold-<token>/tree` what was live, `….ops-state-<token>` how far
a swap has come. The state names every file by its inode, which renames keep: so after a kill between any two steps
the same swap, begun again, sees what is already where it belongs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ops_pipeline.adapters.trees.places import (
    DIRECTORY,
    HOSTILE,
    MISSING,
    REFUSED,
    TreeError,
    exchange,
    found,
    move,
    remove_tree,
    shown,
    sync_file_system,
    translated,
)
from ops_pipeline.adapters.trees.reading import OWN_NAME
from ops_pipeline.core.backup.file_entry import to_raw, to_text

TOKEN = re.compile(r"[a-z0-9]{4,12}")
TREE = b"tree"
_ROUNDS = 5


def _nothing(step: str) -> None: ...


class Places:
    """Where a tree and what restores keep beside it lie. Close it after use."""

    def __init__(self, root: bytes, *, inside: bool, before: Callable[[str], None] = _nothing) -> None:
        """`root` is the absolute path of the live directory, trusted, without links in it. Raise TreeError.

        `before` is called before every change of the file system; what it raises ends the work there.
        """
        self.inside = inside
        self._before = before
        parent, name = os.path.split(root)
        self._live = name  # its name in `base`, when it is exchanged as a whole
        self._prefix = b".ops-" if inside else b"." + name + b".ops-"
        with translated("open", root if inside else parent):
            self.base = os.open(root if inside else parent, DIRECTORY)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.base)

    # ------------------------------------------------------------------------------------------------ the restored one

    def make_beside(self, token: str) -> None:
        """Make the place a restore writes to; keeps what is there."""
        with translated("make the place beside", self._name("restore", token)), self._times_kept():
            self._make("restore", token)
            sync_file_system(self.base)

    def beside(self, token: str) -> int:
        """A new descriptor of the restored tree. Raise TreeError (missing, hostile: somebody else's)."""
        return self._tree("restore", token)

    def drop_beside(self, token: str) -> None:
        """Remove the restored tree; no error when there is none. Raise TreeError (refused) in mid-swap."""
        phase = self._finished(token)
        self._drop("restore", token)
        if phase == "unswapped":
            self._forget(token)

    def holds(self) -> list[str]:
        """Tokens of what was live before a swap."""
        start = self._prefix + b"hold-"
        with translated("list", b""), os.scandir(self.base) as listing:
            names = [os.fsencode(each.name) for each in listing]
        tokens = [name[len(start) :].decode("ascii", "replace") for name in names if name.startswith(start)]
        return sorted(
            token for token in tokens if TOKEN.fullmatch(token) and self._state(token).get("phase") != "unswapped"
        )

    def drop_hold(self, token: str) -> None:
        """Remove what was live before the swap, and the memory of it. Raise TreeError (refused) in mid-swap."""
        self._finished(token)
        self._drop("hold", token)
        self._forget(token)

    # ------------------------------------------------------------------------------------------------ swaps

    def swapped(self, token: str) -> bool:
        """Whether the restored tree is live."""
        return self._state(token).get("phase") == "swapped"

    def swap(self, token: str) -> None:
        """Restored becomes live, live becomes the hold."""
        self._turn(token, "swapping", "swapped", coming="restore", leaving="hold")

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes the restored tree."""
        if self._state(token).get("phase") not in {"swapped", "unswapping", "unswapped"}:
            raise TreeError(REFUSED, f"nothing was swapped with the token {token}")
        self._turn(token, "unswapping", "unswapped", coming="hold", leaving="restore")

    def _turn(self, token: str, doing: str, done: str, *, coming: str, leaving: str) -> None:
        with translated("swap", b""):
            state = self._state(token)
            if state.get("phase") == done:
                self._clear(coming, token)
                return
            other = {"swapping": "unswapping", "unswapping": "swapping"}[doing]
            if state.get("phase") == other:
                raise TreeError(REFUSED, f"the swap {token} is just being turned the other way; finish that first")
            with self._times_kept():
                self._make(leaving, token, tree=self.inside)
            if state.get("phase") != doing:
                state = self._plan(token, doing, coming)
                self._write_state(token, state)
            if self.inside:
                self._turn_names(state, token, coming, leaving)
            else:
                self._turn_whole(state, token, coming, leaving)
            sync_file_system(self.base)
            self._write_state(token, {**state, "phase": done})
            self._clear(coming, token)

    def _plan(self, token: str, doing: str, coming: str) -> dict[str, Any]:
        """What is where before the first rename."""
        if self.inside:
            tree = self._tree(coming, token)
            try:
                root, live = os.fstat(tree), os.fstat(self.base)
                return {
                    "phase": doing,
                    "coming": _inodes(tree),
                    "live": _inodes(self.base),
                    "coming_root": _attributes(root),
                    "live_root": _attributes(live),
                }
            finally:
                os.close(tree)
        if coming == "hold" and not self._exists(coming, token):
            return {"phase": doing, "coming": 0}  # there was nothing live before
        tree = self._tree(coming, token)
        try:
            return {"phase": doing, "coming": os.fstat(tree).st_ino}
        finally:
            os.close(tree)

    # ------------------------------------------------------------------------------------------------ whole

    def _turn_whole(self, state: dict[str, Any], token: str, coming: str, leaving: str) -> None:
        wanted = int(state["coming"])
        source, target = self._folder(coming, token), self._folder(leaving, token)
        try:
            live = found(self.base, self._live)
            if wanted and (live is None or live.st_ino != wanted):
                self._before("exchange")
                if live is None:
                    move(source, TREE, self.base, self._live)
                else:
                    try:
                        exchange(source, TREE, self.base, self._live)
                    except OSError as error:
                        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                            raise
                        # No exchange on this file system: two renames, the state tells a repetition what is missing.
                        move(self.base, self._live, target, TREE)
                        self._before("move in")
                        move(source, TREE, self.base, self._live)
            if not wanted and live is not None:
                self._before("move out")
                move(self.base, self._live, target, TREE)
            rest = found(source, TREE)
            if rest is not None and rest.st_ino != wanted:
                self._before("hold")
                move(source, TREE, target, TREE)
        finally:
            os.close(source)
            os.close(target)

    # ------------------------------------------------------------------------------------------------ inside

    def _turn_names(self, state: dict[str, Any], token: str, coming: str, leaving: str) -> None:
        source, target = self._tree(coming, token), self._tree(leaving, token)
        try:
            arriving, live = state["coming"], state["live"]
            for text in sorted({*arriving, *live}):
                self._turn_name(source, target, to_raw(text), arriving.get(text), live.get(text))
            # What a program that still runs made meanwhile belongs to the old content.
            for _ in range(_ROUNDS):
                late = [text for text in _inodes(self.base) if text not in arriving]
                for text in late:
                    self._before("late")
                    _put_away(self.base, target, to_raw(text))
                waiting = _inodes(source)
                for text in waiting:
                    self._turn_name(source, target, to_raw(text), arriving.get(text), None)
                if not late and not waiting:
                    break
            self._before("dress")
            _dress(target, state["live_root"])
            _dress(self.base, state["coming_root"])
        finally:
            os.close(source)
            os.close(target)

    def _turn_name(self, source: int, target: int, name: bytes, wanted: int | None, leaves: int | None) -> None:
        here = found(self.base, name)
        if wanted is None:
            if here is not None and here.st_ino == leaves:
                self._before("put away")
                _put_away(self.base, target, name)
            return
        ready = found(source, name)
        if ready is None:
            return  # in place already, or placed and written anew since by a program that runs
        if here is None:
            if ready.st_ino == wanted:
                self._before("move in")
                move(source, name, self.base, name)
        elif here.st_ino != wanted and ready.st_ino == wanted:
            self._before("exchange")
            try:
                exchange(source, name, self.base, name)
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                    raise
                _put_away(self.base, target, name)
                self._before("move in")
                move(source, name, self.base, name)
        rest = found(source, name)
        if rest is not None and rest.st_ino != wanted:
            self._before("hold")
            _put_away(source, target, name)

    # ------------------------------------------------------------------------------------------------ names and state

    def _name(self, what: str, token: str) -> bytes:
        if not TOKEN.fullmatch(token):
            raise TreeError(REFUSED, f"not a token of a restore: {token[:40]!r}")
        return self._prefix + f"{what}-{token}".encode()

    def _make(self, what: str, token: str, *, tree: bool = True) -> None:
        name = self._name(what, token)
        if found(self.base, name) is None:
            self._before(f"make {what}")
            os.mkdir(name, 0o700, dir_fd=self.base)
        folder = self._folder(what, token)
        try:
            if tree and found(folder, TREE) is None:
                self._before(f"make tree of {what}")
                os.mkdir(TREE, 0o700, dir_fd=folder)
        finally:
            os.close(folder)

    def _folder(self, what: str, token: str) -> int:
        name = self._name(what, token)
        with translated("open", name):
            descriptor = os.open(name, DIRECTORY, dir_fd=self.base)
        status = os.fstat(descriptor)
        # Where others may write to the live tree they could have put a directory of theirs in our place.
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            raise TreeError(HOSTILE, f"{shown(name)} is not ours alone; nothing was written to it")
        return descriptor

    def _tree(self, what: str, token: str) -> int:
        folder = self._folder(what, token)
        try:
            with translated("open", self._name(what, token)):
                return os.open(TREE, DIRECTORY, dir_fd=folder)
        finally:
            os.close(folder)

    def _exists(self, what: str, token: str) -> bool:
        try:
            os.close(self._tree(what, token))
        except TreeError as error:
            if error.kind != MISSING:
                raise
            return False
        return True

    def _clear(self, what: str, token: str) -> None:
        """Remove the place everything was taken from; one that is not empty stays."""
        name = self._name(what, token)
        if found(self.base, name) is None:
            return
        self._before(f"clear {what}")
        folder = self._folder(what, token)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(TREE, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return
        finally:
            os.close(folder)
        with self._times_kept():
            os.rmdir(name, dir_fd=self.base)
            os.fsync(self.base)

    def _drop(self, what: str, token: str) -> None:
        name = self._name(what, token)
        self._before(f"drop {what}")
        with translated("remove", name), self._times_kept():
            remove_tree(self.base, name)
            sync_file_system(self.base)

    def _state(self, token: str) -> dict[str, Any]:
        with translated("read the state of", b""):
            try:
                descriptor = os.open(
                    self._name("state", token), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.base
                )
            except FileNotFoundError:
                return {}
            with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
                if os.fstat(descriptor).st_uid != os.geteuid():
                    raise TreeError(HOSTILE, f"the state of the swap {token} is not ours")
                state: dict[str, Any] = json.loads(file.read())
                return state

    def _write_state(self, token: str, state: dict[str, Any]) -> None:
        name = self._name("state", token)
        temporary = name + b".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._times_kept():
            descriptor = os.open(temporary, flags, 0o600, dir_fd=self.base)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
                file.write(json.dumps(state).encode())
                file.flush()
                os.fsync(descriptor)
            self._before(f"state {state['phase']}")
            os.rename(temporary, name, src_dir_fd=self.base, dst_dir_fd=self.base)
            os.fsync(self.base)

    def _forget(self, token: str) -> None:
        with translated("forget the swap of", b""), self._times_kept():
            for name in (self._name("state", token), self._name("state", token) + b".new"):
                if found(self.base, name) is not None:
                    os.unlink(name, dir_fd=self.base)
            os.fsync(self.base)

    def _finished(self, token: str) -> str:
        phase = str(self._state(token).get("phase", ""))
        if phase in {"swapping", "unswapping"}:
            raise TreeError(REFUSED, f"the swap {token} is not finished: swap or take it back first")
        return phase

    @contextmanager
    def _times_kept(self) -> Iterator[None]:
        """Leave the live directory's time as it is when only what restores keep inside it changes."""
        status = os.fstat(self.base)
        try:
            yield
        finally:
            if self.inside:
                os.utime(self.base, ns=(status.st_atime_ns, status.st_mtime_ns))


def begun(root: bytes, token: str) -> bool | None:
    """Whether a restore with this token was begun inside `root` (True) or beside it as a whole (False), or not."""
    parent, name = os.path.split(root)
    for inside, start in ((True, root + b"/.ops-"), (False, parent + b"/." + name + b".ops-")):
        if any(os.path.lexists(start + f"{what}-{token}".encode()) for what in ("restore", "hold", "state")):
            return inside
    return None


def _inodes(directory: int) -> dict[str, int]:
    with os.scandir(directory) as listing:
        names = [(os.fsencode(each.name), each.inode()) for each in listing]
    return {to_text(name): inode for name, inode in names if not OWN_NAME.fullmatch(name)}


def _put_away(source: int, target: int, name: bytes) -> None:
    """Move to the old content; what came up under the same name meanwhile is kept beside it."""
    for number in range(1, 1000):
        try:
            move(source, name, target, name if number == 1 else b"%s.ops-late-%d" % (name[:200], number))
            return
        except FileExistsError:
            continue
        except FileNotFoundError:
            return
    raise TreeError(REFUSED, f"{shown(name)} keeps coming back while the tree is swapped: stop what writes to it")


def _attributes(status: os.stat_result) -> list[int]:
    return [status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_mtime_ns]


def _dress(directory: int, attributes: list[int]) -> None:
    uid, gid, mode, time_ns = attributes
    status = os.fstat(directory)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(directory, uid, gid)
    os.fchmod(directory, mode)
    os.utime(directory, ns=(time_ns, time_ns))
