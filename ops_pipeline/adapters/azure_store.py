"""The store in an Azure Blob container, for teams that run the control plane on more than one machine.

Conditions are Azure's own (`If-Match`, `If-None-Match: *`), so exactly one of several writers wins. One case needs
care: the SDK repeats a request whose answer was lost, and if the first one had arrived, the repetition finds the
object changed, by ourselves. So every write carries a random id as blob metadata; a refused write looks whether the
object carries its own id and, if so, has succeeded.

`azure.*` takes most of a second to import, so it is imported when the store is first used.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ops_pipeline.adapters.store_keys import check_conditions, check_key, check_prefix, conflict_words
from ops_pipeline.catalogue import base
from ops_pipeline.errors import Conflict, OpsError, Permanent, Transient
from ops_pipeline.ports import Blob, BlobInfo, BlobStore

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.storage.blob import BlobClient, ContainerClient

_WRITE_ID = "opswrite"
_CONFLICTS = {"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"}
_SINGLE_REQUEST_BYTES = 64 * 1024 * 1024
_SECRETS = re.compile(r"(?i)\b(sig|accountkey|sharedaccesssignature|se|st|sp|sv|skoid)=[^&;\s'\")]+")

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

    def connect() -> ContainerClient:
        from azure.storage.blob import ContainerClient, ExponentialRetry

        # The SDK's own policy waits 15 s before the first repetition.
        retry = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=retries, random_jitter_range=1)
        if settings.connection_string is not None:
            return ContainerClient.from_connection_string(
                secret(settings.connection_string),
                settings.container,
                retry_policy=retry,
                connection_timeout=connection_timeout,
                read_timeout=read_timeout,
                max_single_put_size=_SINGLE_REQUEST_BYTES,
                max_single_get_size=_SINGLE_REQUEST_BYTES,
            )
        if settings.sas_url is not None:
            return ContainerClient.from_container_url(
                secret(settings.sas_url),
                retry_policy=retry,
                connection_timeout=connection_timeout,
                read_timeout=read_timeout,
                max_single_put_size=_SINGLE_REQUEST_BYTES,
                max_single_get_size=_SINGLE_REQUEST_BYTES,
            )
        from azure.identity import DefaultAzureCredential

        return ContainerClient(
            settings.account_url or "",
            settings.container,
            credential=DefaultAzureCredential(process_timeout=10),
            retry_policy=retry,
            connection_timeout=connection_timeout,
            read_timeout=read_timeout,
            max_single_put_size=_SINGLE_REQUEST_BYTES,
            max_single_get_size=_SINGLE_REQUEST_BYTES,
        )

    return AzureStore(connect, prefix=settings.prefix)


class AzureStore(BlobStore):
    """A `BlobStore` in one container, below `prefix`. `connect` makes the client on first use.

    The first write creates the container if it is absent and the identity may.
    """

    def __init__(self, connect: Callable[[], ContainerClient], *, prefix: str = "") -> None:
        self._connect = connect
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client: ContainerClient | None = None
        self._connecting = threading.Lock()
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
                raise self._explained("read", key, error) from None
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
                if _code(error) == "ContainerNotFound":
                    self._create_container()
                    return self._upload(blob, data, write_id, if_match, if_absent)
                if _code(error) in _CONFLICTS:
                    mine = self._own_etag(blob, write_id)
                    if mine is not None:
                        return mine
                raise
        except AzureError as error:
            if _code(error) in _CONFLICTS:
                raise Conflict(conflict_words(key, if_absent=if_absent)) from None
            explained = self._explained("write", key, error)
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
            raise self._explained("delete", key, error) from None

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Objects whose key starts with `prefix`, sorted by key."""
        check_prefix(prefix)
        container = self._container()
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
            raise self._explained("list", prefix, error) from None
        return iter(sorted(found, key=lambda info: info.key))

    # ------------------------------------------------------------------------------------------------ the client

    def _container(self) -> ContainerClient:
        with self._connecting:
            if self._client is None:
                try:
                    self._client = self._connect()
                except ValueError as error:
                    raise Permanent(
                        f"Azure store: connection string, SAS URL or account URL is malformed: {_scrubbed(error)}"
                    ) from None
            return self._client

    def _blob(self, key: str) -> BlobClient:
        return self._container().get_blob_client(self._prefix + check_key(key))

    def _upload(self, blob: BlobClient, data: bytes, write_id: str, if_match: str | None, if_absent: bool) -> str:
        from azure.core import MatchConditions

        if if_match is not None:
            answer = blob.upload_blob(
                data,
                overwrite=True,
                etag=if_match,
                match_condition=MatchConditions.IfNotModified,
                metadata={_WRITE_ID: write_id},
            )
        else:
            answer = blob.upload_blob(data, overwrite=not if_absent, metadata={_WRITE_ID: write_id})
        return str(answer["etag"])

    def _own_etag(self, blob: BlobClient, write_id: str) -> str | None:
        """Etag of the object that refused our write if it is that very write, else None."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            properties = blob.get_blob_properties()
        except ResourceNotFoundError:
            return None
        return str(properties.etag) if (properties.metadata or {}).get(_WRITE_ID) == write_id else None

    def _create_container(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        try:
            self._container().create_container()
        except ResourceExistsError:
            return  # somebody else just did

    def _remember(self, attempt: Attempt, write_id: str) -> None:
        if len(self._unanswered) > 1000:
            self._unanswered.clear()
        self._unanswered[attempt] = write_id

    # ------------------------------------------------------------------------------------------------ errors

    def _explained(self, operation: str, key: str, error: AzureError) -> OpsError:
        """The error in our words. SDK messages may quote a URL with its signature, so they are scrubbed."""
        from azure.core.exceptions import (
            ClientAuthenticationError,
            HttpResponseError,
            IncompleteReadError,
            ServiceRequestError,
            ServiceResponseError,
        )

        url = urlsplit(self._container().url)  # without the query, which holds the signature
        words = f"Azure store {url.netloc}{url.path} cannot {operation} {key}"
        if isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError)):
            return Transient(f"{words}: no answer ({type(error).__name__})", hint="Is the address right and reachable?")
        detail = _scrubbed(error.message)
        if isinstance(error, HttpResponseError) and error.status_code:
            status = error.status_code
            code = _code(error)
            detail = f"{status} {code}" if code else f"{status} {detail}"
            if status in (401, 403):
                return Permanent(
                    f"{words}: access refused ({detail.strip()})",
                    hint="The identity needs the role «Storage Blob Data Contributor» on the container, or the SAS "
                    "token read, write, delete and list, unexpired. Is this machine's clock right?",
                )
            if status in (408, 429) or status >= 500 or code in ("ContainerBeingDeleted", "ServerBusy"):
                return Transient(f"{words}: {detail}")
        if isinstance(error, ClientAuthenticationError):
            return Permanent(
                f"{words}: no credentials ({detail})", hint="Is a managed identity assigned, or `az login` done?"
            )
        return Permanent(f"{words}: {detail}")


def _code(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return "" if code is None else str(getattr(code, "value", code))


def _scrubbed(error: object) -> str:
    """First line of an SDK's message, without signatures and keys."""
    lines = str(error).strip().splitlines()
    return _SECRETS.sub(r"\1=***", lines[0]) if lines else "no details"
