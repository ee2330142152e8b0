"""Whether what a catalogue says about backups can work: stores, keys, policies. Pure: no file, no clock.

The data sources themselves are judged in `backup_source_findings.py`.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Iterator

from ops_pipeline.catalogue.addresses import WAYS, Found, azure_findings
from ops_pipeline.catalogue.backup_model import AzureBackups, Backups, DatabaseSource, DirectorySource
from ops_pipeline.catalogue.backup_source_findings import source_findings
from ops_pipeline.catalogue.base import AzureStore
from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import Catalogue

SCHEDULE_HOURS = 6
"""`backup_every_six_hours` takes a set so often."""

_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")  # bech32 of 32 bytes, without its checksum being computed
_IMAGE = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?")
_AZURE = ("sets", "media", "state", "prune", "prune_media")


def backup_findings(catalogue: Catalogue) -> Iterator[Found]:
    """Everything that makes backups impossible, or worthless."""
    backups = catalogue.backups
    yield from _store(catalogue)
    yield from _keys(backups)
    if not _IMAGE.fullmatch(backups.courier_image):
        yield ("backups", "courier_image"), "must be the name of an image, such as `ops-stack/courier:local`", ()
    backed_up = [name for name, environment in catalogue.environments.items() if environment.backup is not None]
    if backed_up and not backups.recipients and not backups.recipients_file:
        text = (
            f"has no `recipients`: nobody could ever open a backup of `{backed_up[0]}`; `ops backup keys` makes a pair"
        )
        yield ("backups",), text, (("environments", backed_up[0], "backup"),)
    for name, environment in catalogue.environments.items():
        for demand in ("require_backup_minutes", "require_drill_days"):
            if getattr(environment.policy, demand) is not None and environment.backup is None:
                where = ("environments", name, "policy", demand)
                text = f"asks for backups, but `{name}` has no `backup` section: nothing could ever be deployed"
                yield where, text, (("environments", name, "backup"),)
    yield from source_findings(catalogue)
    yield from overlapping_folders(catalogue)


def backup_warnings(catalogue: Catalogue) -> Iterator[Found]:
    """What is allowed and yet may not be meant."""
    azure = catalogue.backups.store.azure
    if azure is not None:
        for name in ("sets", "media"):
            if getattr(azure, name).connection_string is not None:
                text = (
                    "an account key may delete and overwrite every backup: give the machine that takes them a SAS "
                    "that may only create and read"
                )
                yield ("backups", "store", "azure", name, "connection_string"), text, ()
        if (azure.prune is None) != (azure.prune_media is None):
            there, absent = ("prune", "prune_media") if azure.prune is not None else ("prune_media", "prune")
            text = f"`{absent}` is missing: there the credential that writes must be able to delete"
            yield ("backups", "store", "azure", there), text, ()
    for name, environment in catalogue.environments.items():
        backup = environment.backup
        if backup is not None and backup.scheduled and backup.fresh_hours <= SCHEDULE_HOURS:
            text = (
                f"a set is taken every {SCHEDULE_HOURS} hours, and it takes a while: an alert will be raised each time"
            )
            yield ("environments", name, "backup", "fresh_hours"), text, ()
        if backup is not None and not backup.scheduled:
            text = "no schedule takes backups of it: only people and deploys do"
            yield ("environments", name, "backup", "scheduled"), text, ()


def backup_references(catalogue: Catalogue) -> Iterator[tuple[Path, str]]:
    """Secrets that backups of this catalogue need, by path.

    Without the signing key, which is made when it is absent, and the identity, which is best absent.
    """
    backups = catalogue.backups
    for name in _AZURE:
        container = getattr(backups.store.azure, name, None)
        for way in ("connection_string", "sas_url"):
            if container is not None and (reference := getattr(container, way)) is not None:
                yield ("backups", "store", "azure", name, way), reference
    if backups.heartbeat_url is not None:
        yield ("backups", "heartbeat_url"), backups.heartbeat_url
    for name, environment in catalogue.environments.items():
        for source_name, source in (environment.backup.sources if environment.backup is not None else {}).items():
            if isinstance(source, DatabaseSource) and source.password is not None:
                yield ("environments", name, "backup", "sources", source_name, "password"), source.password


def overlapping_folders(catalogue: Catalogue, root: str = "") -> Iterator[Found]:
    """Folders that lie inside one another: of data, of backups, of the ledger.

    Given `root`, the project folder, only pairs of a relative and an absolute path, which cannot be compared without
    it; otherwise all others.
    """
    backups, ledger = catalogue.backups.store.directory, catalogue.store.directory
    kept: Path = ("backups", "store", "directory")
    if backups and ledger and _overlap(backups, ledger, root):
        yield kept, f"overlaps `{ledger}`, where the ledger is kept", (("store", "directory"),)
    ours: list[tuple[Path, str, str]] = []
    if backups:
        ours.append((kept, backups, "where the backups are kept"))
    if ledger:
        ours.append((("store", "directory"), ledger, "where the ledger is kept"))
    seen: list[tuple[Path, str, str]] = []
    for name, environment in catalogue.environments.items():
        sources = environment.backup.sources if environment.backup is not None else {}
        for source_name, source in sources.items():
            if not isinstance(source, DirectorySource) or not source.path.strip():
                continue
            here: Path = ("environments", name, "backup", "sources", source_name, "path")
            for path, folder, what in ours:
                if _overlap(source.path, folder, root):
                    yield here, f"overlaps `{folder}`, {what}", (path,)
            for path, folder, other in seen:
                if _overlap(source.path, folder, root):
                    text = f"overlaps `{folder}` of {other}: restoring one would change the other"
                    yield here, text, (path,)
            seen.append((here, source.path, f"source `{source_name}` of `{name}`"))


def _overlap(one: str, other: str, root: str) -> bool:
    absolute = [path.startswith("/") for path in (one, other)]
    if (absolute[0] != absolute[1]) != bool(root):
        return False
    first, second = (f"{posixpath.normpath(posixpath.join(root, path)).rstrip('/')}/" for path in (one, other))
    # Of two relative paths, the project folder itself holds everything that does not lead out of it.
    for outer, inner in ((first, second), (second, first)):
        if inner.startswith(outer) or (outer == "./" and not inner.startswith(("../", "/"))):
            return True
    return False


def _store(catalogue: Catalogue) -> Iterator[Found]:
    where: Path = ("backups", "store")
    store = catalogue.backups.store
    if (store.directory is None) == (store.azure is None):
        both = "both" if store.azure else "neither"
        yield where, f"needs exactly one of `directory` and `azure`; it has {both}", ()
    if store.directory is not None and not store.directory.strip():
        yield (*where, "directory"), "is empty", ()
    if store.azure is not None:
        yield from _azure((*where, "azure"), store.azure, catalogue)


def _azure(where: Path, azure: AzureBackups, catalogue: Catalogue) -> Iterator[Found]:
    for name in _AZURE:
        container: AzureStore | None = getattr(azure, name)
        if container is not None:
            yield from azure_findings((*where, name), container)
    places = [((*where, name), getattr(azure, name)) for name in ("sets", "media", "state")]
    if catalogue.store.azure is not None:
        places.append((("store", "azure"), catalogue.store.azure))
    for index, (path, container) in enumerate(places):
        for other_path, other in places[:index]:
            if _same_place(container, other):
                place, other_place = (other_path, path) if path[0] == "store" else (path, other_path)
                text = f"is the same place as {'.'.join(map(str, other_place))}; give each its own container"
                yield place, text, (other_path, path)
    for name, writing in (("prune", azure.sets), ("prune_media", azure.media)):
        pruning: AzureStore | None = getattr(azure, name)
        if pruning is None:
            continue
        of = "sets" if name == "prune" else "media"
        if (pruning.container, pruning.prefix.strip("/")) != (writing.container, writing.prefix.strip("/")):
            text = f"must be container and prefix of `{of}`, `{writing.container}`: only the credential differs"
            yield (*where, name), text, ((*where, of),)
        elif all(getattr(pruning, way) == getattr(writing, way) for way in WAYS):
            text = f"has the credential of `{of}`: leave it out, or give `{of}` one that may not delete"
            yield (*where, name), text, ((*where, of),)
    keep = catalogue.backups.retention.keep_days
    if azure.immutability_days is not None:
        if azure.immutability_days > keep:
            text = f"must be at most `backups.retention.keep_days`, {keep:g}: nothing older could be pruned"
            yield (*where, "immutability_days"), text, (("backups", "retention"),)
        for name in ("sets", "media"):
            if (
                _same_account(azure.state, getattr(azure, name))
                and azure.state.container == getattr(azure, name).container
            ):
                text = f"`{azure.state.container}` is immutable and locks could not be written; give `state` its own"
                yield (*where, "state"), text, ((*where, name),)
                break


def _same_account(one: AzureStore, other: AzureStore) -> bool:
    return all(getattr(one, way) == getattr(other, way) for way in WAYS)


def _same_place(one: AzureStore, other: AzureStore) -> bool:
    same = one.container == other.container and one.prefix.strip("/") == other.prefix.strip("/")
    return same and _same_account(one, other)


def _keys(backups: Backups) -> Iterator[Found]:
    for index, recipient in enumerate(backups.recipients):
        where: Path = ("backups", "recipients", index)
        if recipient.upper().startswith("AGE-SECRET-KEY-"):
            text = (
                "is an identity, the SECRET key: it opens every backup. Put its recipient (age1…) here, and make a new "
                "pair with `ops backup keys`, because this one has been seen"
            )
            yield where, text, ()
        elif not _RECIPIENT.fullmatch(recipient):
            yield where, "must be an age recipient: `age1` and 58 lower-case letters and digits", ()
        elif recipient in backups.recipients[:index]:
            yield where, f"stands there already, backups.recipients[{backups.recipients.index(recipient)}]", ()
    if backups.recipients_file is not None and not backups.recipients_file.strip():
        yield ("backups", "recipients_file"), "is empty", ()
    for index, signer in enumerate(backups.trusted_signers):
        if not _is_public_key(signer):
            yield ("backups", "trusted_signers", index), "must be a public key: base64 of 32 bytes", ()
    if backups.identity is not None and backups.identity == backups.signing_key:
        yield ("backups", "identity"), "is the same secret as `signing_key`; they are different keys", ()


def _is_public_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False
