"""What an Azure account really does for backups, next to what the catalogue declares and what credentials may do.

Only the data plane is asked, with the credentials at hand: whether a container has an immutability policy or legal
hold, how long single objects are locked (version-level policies), soft delete of blobs. How many days a
container-level policy has is not to be seen there, and is said to be unknown; what is unknown is never said to be fine.

Probes of credentials change nothing: they go to a key that does not exist, under a condition that cannot hold. The
service judges permission first: 403 = it may not; 404 or 412 = it might have.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from ops_pipeline.adapters.azure_client import AzureContainer, error_code
from ops_pipeline.catalogue.backup_model import AzureBackups, Backups
from ops_pipeline.catalogue.base import AzureStore
from ops_pipeline.errors import OpsError

Secret = Callable[[str], str]

_NO_SUCH_ETAG = '"0x0000000000000000"'


def compare_account(backups: Backups, secret: Secret) -> tuple[str, ...]:
    """Given the catalogue's `backups`, say where the account is weaker than declared, or where that is unknown.

    One sentence each, for people; () = everything declared was seen to hold (or nothing is declared). Takes seconds;
    raises nothing: what cannot be asked is unknown.
    """
    azure = backups.store.azure
    if azure is None:
        return ()
    said: list[str] = []
    if azure.immutability_days is not None:
        said += _immutability("sets", azure.sets, azure.immutability_days, secret)
        said += _immutability("media", azure.media, azure.immutability_days, secret)
    if azure.soft_delete_days is not None:
        said += _soft_delete("sets", azure.prune or azure.sets, azure.soft_delete_days, secret)
        if _account(azure.media) != _account(azure.sets):
            said += _soft_delete("media", azure.prune_media or azure.media, azure.soft_delete_days, secret)
    return tuple(said)


def check_credentials(backups: Backups, secret: Secret) -> tuple[str, ...]:
    """Say which credentials may do more, or less, than they should; () = all is as it should be.

    The writing ones should not delete; they must be able to write, and so to overwrite, because Put Block List needs
    that permission: only an immutability policy keeps them from it. The pruning ones must be able to delete. Takes
    seconds; raises nothing.
    """
    azure = backups.store.azure
    return () if azure is None else tuple(_credentials(azure, secret))


def _credentials(azure: AzureBackups, secret: Secret) -> Iterator[str]:
    for name, writing, pruning in (("sets", azure.sets, azure.prune), ("media", azure.media, azure.prune_media)):
        prune = "prune" if name == "sets" else "prune_media"
        deletes, why = _may(writing, "delete", secret)
        if deletes is None:
            yield f"unknown whether the credential of `{name}` may delete backups: {why}"
        elif deletes:
            advice = (
                f"`{prune}` is there for that" if pruning is not None else f"give `{prune}` one of its own for that"
            )
            yield f"the credential of `{name}` may delete backups: take that permission from it, {advice}"
        overwrites, why = _may(writing, "overwrite", secret)
        if overwrites is None:
            yield f"unknown whether the credential of `{name}` may overwrite backups: {why}"
        elif overwrites and not _protected(writing, secret):
            yield (
                f"the credential of `{name}` may overwrite backups, and container {writing.container} was not seen to "
                "be immutable: whoever has it can destroy them"
            )
        if pruning is None:
            continue
        deletes, why = _may(pruning, "delete", secret)
        if deletes is None:
            yield f"unknown whether the credential of `{prune}` may delete: {why}"
        elif not deletes:
            yield f"the credential of `{prune}` may not delete: nothing will ever be pruned"


def _may(store: AzureStore, what: str, secret: Secret) -> tuple[bool | None, str]:
    """Whether a credential may do this, or None and why that is unknown."""
    from azure.core import MatchConditions
    from azure.core.exceptions import AzureError, HttpResponseError

    container = _container(store, secret)
    try:
        blob = container.client.get_blob_client(f"{container.prefix}ops-probe/{uuid.uuid4().hex}")
        if what == "delete":
            blob.delete_blob(etag=_NO_SUCH_ETAG, match_condition=MatchConditions.IfNotModified)
        else:
            blob.set_blob_metadata({}, etag=_NO_SUCH_ETAG, match_condition=MatchConditions.IfNotModified)
    except HttpResponseError as error:
        if error.status_code == 403 and "Authorization" in error_code(error):
            return False, ""
        if error.status_code == 412 or (error.status_code == 404 and error_code(error) != "ContainerNotFound"):
            return True, ""
        return None, _words(container.explained(what, store.container, error))
    except AzureError as error:
        return None, _words(container.explained(what, store.container, error))
    except OpsError as error:
        return None, _words(error)
    return None, "the service did what could not be done"


def _protected(store: AzureStore, secret: Secret) -> bool:
    """Whether the container was seen to have an immutability policy."""
    properties, _ = _properties(store, secret)
    return properties is not None and (properties["has_immutability_policy"] is True or _versioned(properties))


def _immutability(name: str, store: AzureStore, days: int, secret: Secret) -> Iterator[str]:
    declared = f"declared immutability_days {days} for `{name}`"
    properties, why = _properties(store, secret)
    if properties is None:
        yield f"{declared}; unknown what the account has: {why}"
        return
    if _versioned(properties):
        locked, why = _locked_for(store, secret)
        if locked is None:
            yield f"{declared}; the account has version-level immutability, for how long is unknown: {why}"
        elif locked < timedelta(days=days):
            shown = f"{locked / timedelta(days=1):.0f}"
            yield f"{declared}, but the account has its newest object locked for {shown} days only"
    elif properties["has_immutability_policy"] is True:
        yield (
            f"{declared}; the account has a policy on container {store.container}, for how many days and whether "
            "locked is unknown here: `az storage container immutability-policy show` tells"
        )
    else:
        hold = ", only a legal hold" if properties["has_legal_hold"] is True else ""
        yield f"{declared}, but the account has no immutability policy on container {store.container}{hold}"


def _locked_for(store: AzureStore, secret: Secret) -> tuple[timedelta | None, str]:
    """How long the last object of a listing's first page was locked when it was made."""
    from azure.core.exceptions import AzureError

    container = _container(store, secret)
    try:
        page = next(container.client.list_blobs(include=["immutabilitypolicy"], results_per_page=100).by_page(), None)
        found = max(page or (), key=lambda item: item.creation_time, default=None)
    except AzureError as error:
        return None, _words(container.explained("list", store.container, error))
    if found is None:
        return None, "there is no object yet"
    expires = found.immutability_policy.expiry_time if found.immutability_policy is not None else None
    made = found.creation_time
    if not isinstance(expires, datetime) or not isinstance(made, datetime):
        return timedelta(0), ""
    return expires - made, ""


def _soft_delete(name: str, store: AzureStore, days: int, secret: Secret) -> Iterator[str]:
    from azure.core.exceptions import AzureError

    declared = f"declared soft_delete_days {days} for the account of `{name}`"
    container = _container(store, secret)
    try:
        policy = container.service().get_service_properties()["delete_retention_policy"]
    except AzureError as error:
        yield f"{declared}; unknown what the account has: {_words(container.explained('read', 'its settings', error))}"
        return
    except OpsError as error:
        yield f"{declared}; unknown what the account has: {_words(error)}"
        return
    if policy is None or not policy.enabled:
        yield f"{declared}, but the account has soft delete switched off"
    elif policy.days is None:
        yield f"{declared}; the account has soft delete, for how many days is unknown"
    elif policy.days < days:
        yield f"{declared}, but the account has {policy.days} days"


def _properties(store: AzureStore, secret: Secret) -> tuple[dict[str, object] | None, str]:
    """Properties of a container, or None and why they are unknown."""
    from azure.core.exceptions import AzureError

    container = _container(store, secret)
    try:
        return dict(container.client.get_container_properties()), ""
    except AzureError as error:
        return None, _words(container.explained("read", f"container {store.container}", error))
    except OpsError as error:
        return None, _words(error)


def _versioned(properties: dict[str, object]) -> bool:
    return properties.get("immutable_storage_with_versioning_enabled") is True


def _container(store: AzureStore, secret: Secret) -> AzureContainer:
    return AzureContainer(store, secret, read_timeout=15, retries=0)  # asked again by whoever looks again


def _account(store: AzureStore) -> tuple[str | None, ...]:
    return (store.account_url, store.connection_string, store.sas_url)


def _words(error: OpsError) -> str:
    return error.message
