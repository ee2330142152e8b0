"""A first backup to Azurite beside a bare parallel upload of the same stored bytes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import BlobBlock, ContainerClient

from benchmarks.backup import Project, Took, line
from ops_pipeline_tests.testbed.azurite import azurite
from ops_pipeline_tests.testbed.databases import Database

WORKERS = 4
BLOCK = 8 * 1024 * 1024


def bare_upload(connection: str, sizes: list[int]) -> Took:
    """Upload objects of these sizes: blocks staged in parallel, as fast as the SDK can, of bytes that do not matter."""
    container = ContainerClient.from_connection_string(connection, "bare")
    container.create_container()
    data = os.urandom(BLOCK)
    began = time.monotonic()

    def small(number: int) -> None:
        container.upload_blob(f"small-{number}", data[: sizes[number]])

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(small, [number for number, size in enumerate(sizes) if size <= BLOCK]))
        for number, size in enumerate(sizes):
            if size <= BLOCK:
                continue
            blob = container.get_blob_client(f"large-{number}")
            names = [f"{index:08d}" for index in range(-(-size // BLOCK))]
            lengths = [min(BLOCK, size - index * BLOCK) for index in range(len(names))]
            list(
                pool.map(
                    lambda name, length, blob=blob: blob.stage_block(name, data[:length]),  # type: ignore[misc]
                    names,
                    lengths,
                )
            )
            blob.commit_block_list([BlobBlock(block_id=name) for name in names])
    return Took(time.monotonic() - began, 0)


def beside_bare_upload(work: Path, folder: Path, database: Database) -> bool:
    """Measure both on one Azurite."""
    with azurite() as server:
        secret = work / "connection"
        secret.write_text(server.connection_string)
        places = {
            name: {"container": f"backups-{name}", "connection_string": f"file:{secret}"}
            for name in ("sets", "media", "state")
        }
        project = Project(work / "azure", folder, database.name, {"azure": places})
        project.do("keys")
        ours = project.do("take")
        sizes = [
            blob.size
            for name in ("sets", "media")
            for blob in ContainerClient.from_connection_string(server.connection_string, f"backups-{name}").list_blobs()
        ]
        bare = bare_upload(server.connection_string, sizes)
    return line("first backup to Azurite", ours, bare, "bare upload", 0.95)
