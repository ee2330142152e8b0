"""The store in an Azure Blob container, for teams that run the control plane on more than one machine.

Conditions are Azure's own (`If-Match`, `If-None-Match: *`), so exactly one of several writers wins. One case needs
care: the SDK repeats a request whose answer was lost, and if the first one had arrived, the repetition finds the
object changed, by ourselves. So every write carries a random id as blob metadata; a refused write looks whether the
object carries its own id and, if so, has succeeded.

`azure.*` takes most of a second to import, so it is imported when the store is first used.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ops_pipeline.adapters.azure_client import EXISTS, WRITE_ID, AzureContainer, error_code
from ops_pipeline.adapters.store_keys import check_conditions, check_key, check_prefix, conflict_words
from ops_pipeline.catalogue import base
from ops_pipeline.errors import Conflict, Transient
from ops_pipeline.ports import Blob, BlobInfo, BlobStore

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

Attempt = tuple[str, str | None, bool, bytes]


def open_azure_store(
    settings: base.AzureStore,
    secret: Callable[[str], str],
    *,
    connection_timeout: float = 5.0,
    read_timeout: float = 30.0,
    retries: int = 2,
) -> AzureStore:
    """Given the catalogue's settings and a reader of secret references, return the store; nothing is contacted yet.

    Times are seconds per attempt; a call makes at most `1 + retries` of them.
    """
    container = AzureContainer(
        settings, secret, connection_timeout=connection_timeout, read_timeout=read_timeout, retries=retries
    )
    return AzureStore(container)


class AzureStore(BlobStore):
    """A `BlobStore` in one container, below the prefix of its settings.

    The first write creates the container if it is absent and the identity may.
    """

    def __init__(self, container: AzureContainer) -> None:
        self._container = container
        self._prefix = container.prefix
        self._unanswered: dict[Attempt, str] = {}

    def read(self, key: str) -> Blob | None:
        """The object, or None. Raise Transient when the service does not answer, Permanent when it refuses."""
        blob = self._blob(key)
        from azure.core.exceptions import AzureError, ResourceModifiedError, ResourceNotFoundError

        for _ in range(5):
            try:
                download = blob.download_blob()
                return Blob(download.readall(), str(download.properties.etag))
            except ResourceNotFoundError:
                return None
            except ResourceModifiedError:
                continue  # replaced between two parts of a large object
            except AzureError as error:
                raise self._container.explained("read", key, error) from None
        raise Transient(f"stored object {key} is replaced faster than it can be read")

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Store durably and return the new etag. See `BlobStore.write`."""
        check_conditions(if_match, if_absent)
        blob = self._blob(key)
        from azure.core.exceptions import AzureError

        # Whoever repeats a write after Transient («maybe written») repeats it under the same id.
        attempt = (key, if_match, if_absent, hashlib.sha256(data).digest())
        write_id = self._unanswered.pop(attempt, None) or uuid.uuid4().hex
        try:
            try:
                return self._upload(blob, data, write_id, if_match, if_absent)
            except AzureError as error:
                if error_code(error) == "ContainerNotFound":
                    self._container.create()
                    return self._upload(blob, data, write_id, if_match, if_absent)
                if error_code(error) in EXISTS:
                    mine = self._own_etag(blob, write_id)
                    if mine is not None:
                        return mine
                raise
        except AzureError as error:
            if error_code(error) in EXISTS:
                raise Conflict(conflict_words(key, if_absent=if_absent)) from None
            explained = self._container.explained("write", key, error)
            if isinstance(explained, Transient):
                self._remember(attempt, write_id)
            raise explained from None

    def delete(self, key: str) -> None:
        """Remove; no error when there is none."""
        blob = self._blob(key)
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            blob.delete_blob()
        except ResourceNotFoundError:
            return
        except AzureError as error:
            raise self._container.explained("delete", key, error) from None

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Objects whose key starts with `prefix`, sorted by key."""
        check_prefix(prefix)
        container = self._container.client
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        found = []
        try:
            # Metadata tells the folders of accounts with a hierarchical namespace from objects.
            for item in container.list_blobs(name_starts_with=self._prefix + prefix, include=["metadata"]):
                if (item.metadata or {}).get("hdi_isfolder") != "true":
                    found.append(BlobInfo(item.name.removeprefix(self._prefix), item.size, item.last_modified))
        except ResourceNotFoundError:
            return iter(())
        except AzureError as error:
            raise self._container.explained("list", prefix, error) from None
        return iter(sorted(found, key=lambda info: info.key))

    # ------------------------------------------------------------------------------------------------ the client

    def _blob(self, key: str) -> BlobClient:
        return self._container.client.get_blob_client(self._prefix + check_key(key))

    def _upload(self, blob: BlobClient, data: bytes, write_id: str, if_match: str | None, if_absent: bool) -> str:
        from azure.core import MatchConditions

        if if_match is not None:
            answer = blob.upload_blob(
                data,
                overwrite=True,
                etag=if_match,
                match_condition=MatchConditions.IfNotModified,
                metadata={WRITE_ID: write_id},
            )
        else:
            answer = blob.upload_blob(data, overwrite=not if_absent, metadata={WRITE_ID: write_id})
        return str(answer["etag"])

    def _own_etag(self, blob: BlobClient, write_id: str) -> str | None:
        """Etag of the object that refused our write if it is that very write, else None."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            properties = blob.get_blob_properties()
        except ResourceNotFoundError:
            return None
        return str(properties.etag) if (properties.metadata or {}).get(WRITE_ID) == write_id else None

    def _remember(self, attempt: Attempt, write_id: str) -> None:
        if len(self._unanswered) > 1000:
            self._unanswered.clear()
        self._unanswered[attempt] = write_id
