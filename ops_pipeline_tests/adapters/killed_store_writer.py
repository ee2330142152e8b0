"""Kill a writer before every single line of `directory_store.py` it executes, and look at the store each time.

    python -m ops_pipeline_tests.adapters.killed_store_writer FOLDER first|overwrite|conditional|delete

Prints how many times it killed. Exits 1, saying after which line, when a reader could have seen anything but the
old object or the new one, or when the next writer had to wait.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from ops_pipeline.adapters import directory_store
from ops_pipeline.adapters.directory_store import DirectoryStore

KEY = "current/prod/api"
OLD, NEW = b"old" * 1000, b"new" * 2000


def die_before(line_number: int) -> None:
    """From now on count the lines executed in the adapter; SIGKILL ourselves before number `line_number`."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal seen
        if frame.f_code.co_filename != directory_store.__file__:
            return None
        if event == "line":
            seen += 1
            if seen == line_number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]


def act(root: Path, case: str, etag: str) -> None:
    store = DirectoryStore(root)
    if case == "delete":
        store.delete(KEY)
    else:
        store.write(KEY, NEW, if_match=etag if case == "conditional" else None)


def main(root: Path, case: str) -> int:
    before = None if case == "first" else OLD
    after = None if case == "delete" else NEW
    kills = 0
    while True:
        shutil.rmtree(root, ignore_errors=True)
        etag = "" if before is None else DirectoryStore(root).write(KEY, OLD)
        child = os.fork()
        if child == 0:
            die_before(kills + 1)
            act(root, case, etag)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        store = DirectoryStore(root)
        blob = store.read(KEY)
        found = None if blob is None else blob.data
        listed = [(info.key, info.size) for info in store.list("")]
        whole = found in (before, after) and listed == ([] if found is None else [(KEY, len(found))])
        started = time.monotonic()
        store.write(KEY, b"next", if_match=None if blob is None else blob.etag, if_absent=blob is None)
        if not whole or time.monotonic() - started > 2:
            print(f"killed before line {kills + 1}: found {found!r:.40}, listed {listed}")
            return 1
        if not os.WIFSIGNALED(status):
            print(kills)
            return 0 if found == after and os.WEXITSTATUS(status) == 0 else 1
        kills += 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
