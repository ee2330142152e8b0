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


def bare_upload(connection: str, name: str, sizes: list[int]) -> Took:
    """Upload objects of these sizes: blocks staged in parallel, as fast as the SDK can, of bytes that do not matter."""
    container = ContainerClient.from_connection_string(connection, name)
    container.create_container()
    data = os.urandom(BLOCK)
    began, cpu = time.monotonic(), time.process_time()

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
    return Took(time.monotonic() - began, 0, cpu=time.process_time() - cpu)


def beside_bare_upload(work: Path, folder: Path, database: Database) -> bool:
    """Measure on one Azurite: the photos alone, which only wait for the upload, and a set with the database's dump."""
    good = True
    with azurite() as server:
        secret = work / "connection"
        secret.write_text(server.connection_string)
        for name, what, sources in (
            ("photos", "photos to Azurite", ["photos"]),
            ("all", "first backup to Azurite", []),
        ):
            places = {
                kind: {"container": f"backups-{name}-{kind}", "connection_string": f"file:{secret}"}
                for kind in ("sets", "media", "state")
            }
            project = Project(work / f"azure-{name}", folder, database.name, {"azure": places})
            project.do("keys")
            ours = project.do("take", *sources)
            sizes = [
                blob.size
                for kind in ("sets", "media")
                for blob in ContainerClient.from_connection_string(
                    server.connection_string, f"backups-{name}-{kind}"
                ).list_blobs()
            ]
            bare = bare_upload(server.connection_string, f"bare-{name}", sizes)
            good &= line(what, ours, bare, "bare upload", 0.95)
    return good
