"""What the store tests run in processes of their own, one to be killed.

    python -m ops_pipeline_tests.contracts.store_process LOCATION COMMAND KEY [NUMBER]

LOCATION is a folder, or an Azure connection string followed by '#' and the container's name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ops_pipeline.adapters.azure_store import open_azure_store
from ops_pipeline.adapters.directory_store import DirectoryStore
from ops_pipeline.catalogue.model import AzureStore as Settings
from ops_pipeline.errors import Conflict
from ops_pipeline.ports import BlobStore


def open_store(location: str) -> BlobStore:
    if "#" not in location:
        return DirectoryStore(Path(location))
    connection, _, container = location.rpartition("#")
    return open_azure_store(Settings(container=container, connection_string="env:UNUSED"), lambda _: connection)


def count_up(store: BlobStore, key: str, times: int) -> None:
    """A counter that loses no increment if, and only if, conditional writes are atomic."""
    done = 0
    while done < times:
        blob = store.read(key)
        try:
            if blob is None:
                store.write(key, b"1", if_absent=True)
            else:
                store.write(key, b"%d" % (int(blob.data) + 1), if_match=blob.etag)
            done += 1
        except Conflict:
            continue


def rewrite(store: BlobStore, key: str, size: int) -> None:
    """Replace the object for ever, each time by `size` equal bytes of another value."""
    value = 0
    while True:
        store.write(key, bytes([value]) * size)
        value = (value + 1) % 256


if __name__ == "__main__":
    opened, command, name = open_store(sys.argv[1]), sys.argv[2], sys.argv[3]
    number = int(sys.argv[4])
    {"count": count_up, "rewrite": rewrite}[command](opened, name, number)
