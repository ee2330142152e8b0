"""Kill a writer before every single line of the directory of objects it executes, and look at the store each time.

    python -m ops_pipeline_tests.adapters.killed_object_writer FOLDER blocks|puts|delete

Prints how many times it killed. Exits 1, saying before which line, when a reader could have seen anything but whole
objects, or something that the writer had been told is durable is missing, or the next writer cannot finish the work.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from ops_pipeline.adapters import local_disk, object_directory, object_directory_writer
from ops_pipeline.adapters.object_directory import ObjectDirectory

TRACED = {module.__file__ for module in (local_disk, object_directory, object_directory_writer)}
BLOCKS = [b"a" * 3000, b"b" * 4000, b"c" * 50]
PUTS = {f"media/{number % 3}/{number}": bytes([number]) * 2000 for number in range(6)}
KEY = "sets/prod/a/part"


def die_before(line_number: int) -> None:
    """From now on count the lines executed in the adapter; SIGKILL ourselves before number `line_number`."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal seen
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            seen += 1
            if seen == line_number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]


def act(root: Path, case: str) -> None:
    store = ObjectDirectory(root)
    if case == "blocks":
        writer = store.begin(KEY)
        for index in (1, 0, 2):
            writer.block(index, BLOCKS[index])
        writer.commit(3)
    elif case == "puts":
        for key, data in PUTS.items():
            store.put(key, data)
        store.flush()
    else:
        info = store.stat(KEY)
        store.delete(KEY, etag=info.etag if info else None)


def main(root: Path, case: str) -> int:
    wanted = {"blocks": {KEY: b"".join(BLOCKS)}, "puts": PUTS, "delete": {}}[case]
    kills, step = 0, 1
    while True:
        shutil.rmtree(root, ignore_errors=True)
        if case == "delete":
            act(root, "blocks")
        child = os.fork()
        if child == 0:
            die_before(kills * step + 1)
            act(root, case)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        store = ObjectDirectory(root)
        found = {info.key: store.get(info.key) for info in store.list("")}
        allowed = wanted or {KEY: b"".join(BLOCKS)}
        ended = not os.WIFSIGNALED(status)
        if not found.items() <= allowed.items() or (ended and found != wanted):
            print(f"killed before line {kills * step + 1}: found {sorted(found)}")
            return 1
        # The next one finishes the work, whatever the first had done.
        if case == "puts":
            for key in PUTS.keys() - found.keys():
                store.put(key, PUTS[key])
            store.flush()
        elif case == "delete" or not found:
            act(root, case)
        if {info.key: store.get(info.key) for info in store.list("")} != wanted:
            print(f"killed before line {kills * step + 1}: the next writer could not finish")
            return 1
        if ended:
            print(kills)
            return 0 if os.WEXITSTATUS(status) == 0 else 1
        kills += 1
        step = 1 if case != "puts" else 3  # every third line: six objects go the same way


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
