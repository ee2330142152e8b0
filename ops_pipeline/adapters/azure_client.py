"""What the stores in Azure Blob have in common: the client of a container, and its errors in clear words.

`azure.*` takes most of a second to import, so it is imported when a store is first used.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ops_pipeline.catalogue import base
from ops_pipeline.errors import OpsError, Permanent, Transient

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.core.pipeline.transport import RequestsTransport
    from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry

SINGLE_REQUEST_BYTES = 64 * 1024 * 1024
WRITE_ID = "opswrite"
"""Metadata with which every write carries its own random id: so a repetition recognises what it did before."""

EXISTS = {"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"}
"""Codes of a conditional write whose condition did not hold."""

_WORM = {"BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold", "ContainerImmutableDueToPolicy"}
_SECRETS = re.compile(r"(?i)\b(sig|accountkey|sharedaccesssignature|se|st|sp|sv|skoid)=[^&;\s'\")]+")


class AzureContainer:
    """A container and how to reach it; nothing is contacted before `client` is asked for. Safe for threads.

    Times are seconds per attempt; the SDK's policy repeats a call at most `retries` times (time-outs, cut
    connections, 408 and 5xx), with growing waits and jitter. `connections` bounds those kept open at once.
    """

    def __init__(
        self,
        settings: base.AzureStore,
        secret: Callable[[str], str],
        *,
        connection_timeout: float = 5.0,
        read_timeout: float = 30.0,
        retries: int = 2,
        connections: int = 10,
    ) -> None:
        self.prefix = f"{settings.prefix.strip('/')}/" if settings.prefix.strip("/") else ""
        self.retries = retries
        self._settings = settings
        self._secret = secret
        self._timeouts = (connection_timeout, read_timeout)
        self._connections = connections
        self._client: ContainerClient | None = None
        self._connecting = threading.Lock()

    @property
    def client(self) -> ContainerClient:
        """The SDK's client. Raise BadInput (secret), Permanent (malformed)."""
        with self._connecting:
            if self._client is None:
                try:
                    self._client = self._connect()
                except ValueError as error:
                    raise Permanent(
                        f"Azure store: connection string, SAS URL or account URL is malformed: {_scrubbed(error)}"
                    ) from None
            return self._client

    @property
    def place(self) -> str:
        """Address of the container, without the query, which holds the signature."""
        url = urlsplit(self.client.url)
        return f"{url.netloc}{url.path}"

    def service(self) -> BlobServiceClient:
        """A client of the whole account, with the same credential. Raise BadInput, Permanent."""
        from azure.storage.blob import BlobServiceClient

        client, settings = self.client, self._settings
        retry = self._retry()
        if settings.connection_string is not None:
            return BlobServiceClient.from_connection_string(
                self._secret(settings.connection_string), retry_policy=retry, transport=self._transport()
            )
        query = urlsplit(self._secret(settings.sas_url)).query if settings.sas_url is not None else ""
        address = urlsplit(client.url)
        account = address._replace(path=address.path.rpartition("/")[0], query=query).geturl()
        return BlobServiceClient(
            account,
            credential=None if query else client.credential,
            retry_policy=retry,
            transport=self._transport(),
        )

    def create(self) -> None:
        """Create the container if it is absent. Raise AzureError."""
        from azure.core.exceptions import ResourceExistsError

        try:
            self.client.create_container()
        except ResourceExistsError:
            return  # somebody else just did

    def explained(self, operation: str, key: str, error: AzureError) -> OpsError:
        """The error in our words. SDK messages may quote a URL with its signature, so they are scrubbed."""
        from azure.core.exceptions import (
            ClientAuthenticationError,
            HttpResponseError,
            IncompleteReadError,
            ServiceRequestError,
            ServiceResponseError,
        )

        words = f"Azure store {self.place} cannot {operation} {key}"
        lost = isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError))
        # The SDK's download wraps what it gave up on in an HttpResponseError without an answer.
        if lost or (isinstance(error, HttpResponseError) and error.response is None):
            return Transient(f"{words}: no answer ({type(error).__name__})", hint="Is the address right and reachable?")
        detail = _scrubbed(error.message)
        if isinstance(error, HttpResponseError) and error.status_code:
            status = error.status_code
            code = error_code(error)
            detail = f"{status} {code}" if code else f"{status} {detail}"
            if code in _WORM:
                return Permanent(
                    f"{words}: protected by the account's immutability policy or legal hold ({detail})",
                    hint="It can be deleted when the policy's days are over or the hold is lifted.",
                )
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

    def _connect(self) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        settings = self._settings
        retry = self._retry()
        if settings.connection_string is not None:
            return ContainerClient.from_connection_string(
                self._secret(settings.connection_string),
                settings.container,
                retry_policy=retry,
                transport=self._transport(),
                max_single_put_size=SINGLE_REQUEST_BYTES,
                max_single_get_size=SINGLE_REQUEST_BYTES,
            )
        if settings.sas_url is not None:
            return ContainerClient.from_container_url(
                self._secret(settings.sas_url),
                retry_policy=retry,
                transport=self._transport(),
                max_single_put_size=SINGLE_REQUEST_BYTES,
                max_single_get_size=SINGLE_REQUEST_BYTES,
            )
        from azure.identity import DefaultAzureCredential

        return ContainerClient(
            settings.account_url or "",
            settings.container,
            credential=DefaultAzureCredential(process_timeout=10),
            retry_policy=retry,
            transport=self._transport(),
            max_single_put_size=SINGLE_REQUEST_BYTES,
            max_single_get_size=SINGLE_REQUEST_BYTES,
        )

    def _retry(self) -> ExponentialRetry:
        from azure.storage.blob import ExponentialRetry

        # The SDK's own settings wait 15 s before the first repetition, and count kinds of failures one by one.
        return ExponentialRetry(
            initial_backoff=1,
            increment_base=2,
            retry_total=self.retries,
            retry_connect=self.retries,
            retry_read=self.retries,
            retry_status=self.retries,
            random_jitter_range=1,
        )

    def _transport(self) -> RequestsTransport:
        """The SDK's own transport with a pool of our size: its ten connections are too few for sixteen workers."""
        import requests
        from azure.core.pipeline.transport import RequestsTransport
        from requests.adapters import HTTPAdapter, Retry

        session = requests.Session()
        once = Retry(total=False, redirect=False, raise_on_status=False)  # as the SDK's: its own policy repeats
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=self._connections, max_retries=once))
        connect, read = self._timeouts
        return RequestsTransport(session=session, connection_timeout=connect, read_timeout=read)


def error_code(error: AzureError) -> str:
    """Azure's code of an error ("BlobNotFound"), or ""."""
    code = getattr(error, "error_code", None)
    return "" if code is None else str(getattr(code, "value", code))


def _scrubbed(error: object) -> str:
    """First line of an SDK's message, without signatures and keys."""
    lines = str(error).strip().splitlines()
    return _SECRETS.sub(r"\1=***", lines[0]) if lines else "no details"
