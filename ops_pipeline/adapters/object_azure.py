"""Objects that are written once, in a container of Azure Blob Storage.

A small object is one Put Blob; one of many blocks is Put Block for each and one Put Block List, which is what makes
it exist. Both carry `If-None-Match: *`, so nothing is ever replaced, and a random id as metadata: when an answer was
lost and the repetition finds the object there, the id says that it is ours. Block ids carry the same id, so two
writers of one key never mix blocks. Blocks that were never committed do not show and are dropped by Azure after 7
days.

Protocol: Microsoft, «Put Block», «Put Block List», «Put Blob», «Specifying conditional headers for Blob service
operations»; limits: «Scalability and performance targets for Blob storage».
"""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ops_pipeline.adapters.azure_client import EXISTS, WRITE_ID, AzureContainer, error_code
from ops_pipeline.adapters.object_azure_writer import AzureWriter, answered, aware
from ops_pipeline.adapters.store_keys import check_key, check_prefix, conflict_words
from ops_pipeline.catalogue import base
from ops_pipeline.errors import Conflict, NotFound, Permanent, Transient
from ops_pipeline.ports import ObjectInfo, ObjectStore, ObjectWriter

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobClient, BlobProperties

T = TypeVar("T")

PAGE = 5_000
"""Most objects that one request of a listing returns."""

_TAKEN = EXISTS | {"UnauthorizedBlobOverwrite"}  # the last one: a SAS that may create and not replace
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0


def open_azure_objects(
    settings: base.AzureStore,
    secret: Callable[[str], str],
    *,
    workers: int = 4,
    connection_timeout: float = 5.0,
    read_timeout: float = 60.0,
    retries: int = 4,
    page: int = PAGE,
) -> AzureObjects:
    """Given the catalogue's settings and a reader of secret references, return the store; nothing is contacted yet.

    `workers` threads at most are expected to use it at once. Times are seconds per attempt; a call makes at most
    `1 + retries` of them, with growing waits and jitter (some 15 s in all by default). A listing asks
    for `page` objects at a time.
    """
    return AzureObjects(
        AzureContainer(
            settings,
            secret,
            connection_timeout=connection_timeout,
            read_timeout=read_timeout,
            retries=retries,
            connections=workers + 2,
        ),
        page=page,
    )


class AzureObjects(ObjectStore):
    """An `ObjectStore` in one container, below the prefix of its settings. Safe for threads.

    The first write creates the container if it is absent and the identity may.
    """

    def __init__(self, container: AzureContainer, *, page: int = PAGE) -> None:
        self._container = container
        self._page = page
        self._unanswered: dict[str, tuple[bytes, str]] = {}  # key → hash of what may have been put, and its id

    def begin(self, key: str) -> ObjectWriter:
        """Start an object of many blocks; the first request is the first block's."""
        return AzureWriter(self, check_key(key))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Store a whole small object in one request; durable at once. See `ObjectStore.put`."""
        blob = self.blob(key)
        # Whoever repeats a put after Transient («maybe written») repeats it under the same id.
        earlier = self._unanswered.pop(key, None)
        write_id = earlier[1] if earlier and earlier[0] == hashlib.sha256(data).digest() else uuid.uuid4().hex

        def upload() -> ObjectInfo:
            answer = blob.upload_blob(data, length=len(data), overwrite=False, metadata={WRITE_ID: write_id})
            return answered(key, len(data), answer)

        try:
            return self.written(key, write_id, upload)
        except Conflict as conflict:
            if self.properties(key) is not None:
                raise
            # Nothing shows: blocks that a killed writer never committed count as existing (seen on Azurite).
            writer = AzureWriter(self, key)
            try:
                writer.block(0, data)
                return writer.commit(1)
            except Permanent:
                raise conflict from None
        except Transient:
            if len(self._unanswered) > 1000:
                self._unanswered.clear()
            self._unanswered[key] = (hashlib.sha256(data).digest(), write_id)
            raise

    def flush(self) -> None:
        """Nothing to do: what Azure has answered is durable."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, all of one version of it. See `ObjectStore.get`."""
        if offset < 0 or (length is not None and length < 0):
            raise Permanent(f"stored object {key}: no such range ({offset}, {length})")
        blob = self.blob(key)
        if length == 0:
            return self._nothing_of(key)
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        def download() -> bytes:
            # One request up to SINGLE_REQUEST_BYTES; the SDK pins the ETag of the first one for any more.
            return bytes(blob.download_blob(offset=offset or (0 if length else None), length=length).readall())

        try:
            return self.asked("read", key, download)
        except ResourceNotFoundError:
            raise self._not_found(key) from None
        except HttpResponseError as error:
            if error.status_code == 416:  # begins behind the end
                return self._nothing_of(key)
            if error.status_code == 412:
                raise Transient(f"stored object {key} was replaced while it was read") from None
            raise self._container.explained("read", key, error) from None

    def stat(self, key: str) -> ObjectInfo | None:
        """What is known without reading it, or None."""
        properties = self.properties(key)
        if properties is None:
            return None
        return ObjectInfo(key, int(properties.size or 0), aware(properties.last_modified), str(properties.etag))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key begins so, sorted by key; one page in memory at a time."""
        check_prefix(prefix)
        return self._listed(prefix)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove. See `ObjectStore.delete`."""
        blob = self.blob(key)
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        def remove() -> None:
            if etag is None:
                blob.delete_blob()
            else:
                blob.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

        try:
            self.asked("delete", key, remove)
        except ResourceNotFoundError:
            return
        except HttpResponseError as error:
            if error.status_code != 412:
                raise self._container.explained("delete", key, error) from None
            if self.properties(key) is not None:  # Azurite says 412 of one that is gone, too
                raise Conflict(f"stored object {key} is another one by now; nothing was deleted") from None

    # ------------------------------------------------------------------------------------------------ inside

    def blob(self, key: str) -> BlobClient:
        """The SDK's client of an object."""
        return self._container.client.get_blob_client(self._container.prefix + check_key(key))

    def asked(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Do `action`, repeating it on 429, which the SDK does not; everything else it repeats by itself.

        HttpResponseError with a status of 4xx passes; every other error of the SDK is raised in our words.
        """
        from azure.core.exceptions import AzureError, HttpResponseError

        wait = _FIRST_WAIT_SECONDS
        for attempt in range(self._container.retries + 1):
            try:
                return action()
            except HttpResponseError as error:
                if error.status_code == 429 and attempt < self._container.retries:
                    time.sleep(_pause(error, wait))
                    wait *= 2
                    continue
                if error.status_code is not None and 400 <= error.status_code < 500 and error.status_code != 429:
                    raise
                raise self._container.explained(operation, key, error) from None
            except AzureError as error:
                raise self._container.explained(operation, key, error) from None
        raise AssertionError("there is at least one attempt")

    def written(self, key: str, write_id: str, action: Callable[[], ObjectInfo]) -> ObjectInfo:
        """Do a conditional write that carries `write_id`. Raise Conflict, Transient, Permanent."""
        from azure.core.exceptions import HttpResponseError

        try:
            return self.in_container(key, action)
        except HttpResponseError as error:
            taken = error_code(error) in _TAKEN or error.status_code == 412
            # An earlier attempt of ours may have arrived; also when blocks are gone: a commit uses them up.
            properties = self.properties(key) if taken or error_code(error) == "InvalidBlockList" else None
            if properties is not None and (properties.metadata or {}).get(WRITE_ID) == write_id:
                return ObjectInfo(key, int(properties.size or 0), aware(properties.last_modified), str(properties.etag))
            if taken or properties is not None:
                raise Conflict(conflict_words(key, if_absent=True)) from None
            raise self._container.explained("write", key, error) from None

    def in_container(self, key: str, action: Callable[[], T]) -> T:
        """`asked`, making the container first when it is absent. Raise HttpResponseError (4xx)."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.asked("write", key, action)
        except ResourceNotFoundError as error:
            if error_code(error) != "ContainerNotFound":
                raise
            try:
                self.asked("write", key, self._container.create)
            except ResourceNotFoundError:
                raise error from None
            return self.asked("write", key, action)

    def properties(self, key: str) -> BlobProperties | None:
        """What Azure says about an object, or None. Raise Transient, Permanent."""
        blob = self.blob(key)
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        try:
            return self.asked("read", key, blob.get_blob_properties)
        except ResourceNotFoundError:
            return None
        except HttpResponseError as error:
            raise self._container.explained("read", key, error) from None

    def refused(self, operation: str, key: str, error: HttpResponseError) -> Exception:
        """An error that `asked` let pass, in our words."""
        return self._container.explained(operation, key, error)

    def _nothing_of(self, key: str) -> bytes:
        if self.properties(key) is None:
            raise self._not_found(key)
        return b""

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"there is no stored object {key} in {self._container.place}")

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        ours = self._container.prefix
        pages = self._container.client.list_blobs(
            name_starts_with=ours + prefix, include=["metadata"], results_per_page=self._page
        ).by_page()
        last = ""
        while True:
            try:
                # Metadata tells the folders of accounts with a hierarchical namespace from objects.
                page = self.asked("list", prefix, lambda: [list(page) for page in islice(pages, 1)])
            except ResourceNotFoundError:
                return
            except HttpResponseError as error:
                raise self._container.explained("list", prefix, error) from None
            if not page:
                return
            found = [
                ObjectInfo(item.name.removeprefix(ours), item.size, aware(item.last_modified), _quoted(item.etag))
                for item in page[0]
                if (item.metadata or {}).get("hdi_isfolder") != "true"
            ]
            for info in sorted(found, key=lambda info: info.key):
                if info.key <= last:
                    raise Permanent(
                        f"Azure store {self._container.place} lists {info.key} after {last}: not in the order of keys",
                        hint="Accounts with a hierarchical namespace may; backups need one without.",
                    )
                last = info.key
                yield info


def _pause(error: HttpResponseError, wait: float) -> float:
    """Seconds until the next attempt: what the answer asks for, else `wait`, with jitter, bounded."""
    headers = getattr(error.response, "headers", None) or {}
    asked = str(headers.get("Retry-After", ""))
    seconds = max(wait, float(asked)) if asked.isdigit() else wait
    return min(seconds, _LONGEST_WAIT_SECONDS) + random.uniform(0, wait / 2)  # noqa: S311 - jitter


def _quoted(etag: str) -> str:
    """Listings give an ETag without the quotes that everything else has."""
    return etag if etag.startswith('"') else f'"{etag}"'
