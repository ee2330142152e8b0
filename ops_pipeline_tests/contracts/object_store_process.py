"""What the tests of object stores run in a process of its own, to be killed.

    python -m ops_pipeline_tests.contracts.object_store_process LOCATION STEP

LOCATION is a folder, or an Azure connection string followed by '#' and the container's name. Does everything up to
STEP, says so on standard output, and waits to be killed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from ops_pipeline.adapters.object_azure import open_azure_objects
from ops_pipeline.adapters.object_directory import ObjectDirectory
from ops_pipeline.catalogue.base import AzureStore as Settings
from ops_pipeline.ports import ObjectStore

STEPS = ("block", "commit", "put", "flush")
BLOCKS = [bytes([65 + index]) * (1000 + index) for index in range(3)]
PUTS = {f"media/{index:02x}/{index:064x}": bytes([index]) * 5000 for index in range(20)}


def open_store(location: str) -> ObjectStore:
    if "#" not in location:
        return ObjectDirectory(Path(location))
    connection, _, container = location.rpartition("#")
    settings = Settings(container=container, connection_string="env:UNUSED")
    return open_azure_objects(settings, lambda _: connection, page=7)


def act(store: ObjectStore, last: str) -> None:
    """Store one object of blocks and twenty small ones, up to and with the step `last`."""
    writer = store.begin("sets/a/parts/shop.dump.sealed")
    for step in STEPS[: STEPS.index(last) + 1]:
        if step == "block":
            for index, block in enumerate(BLOCKS):
                writer.block(index, block)
        elif step == "commit":
            writer.commit(len(BLOCKS))
        elif step == "put":
            for key, data in PUTS.items():
                store.put(key, data)
        else:
            store.flush()


if __name__ == "__main__":
    act(open_store(sys.argv[1]), sys.argv[2])
    print("done", flush=True)
    threading.Event().wait()
