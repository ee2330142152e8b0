"""Accounts that are weaker than declared, and credentials that may do more than they should: said in sentences.

Azurite has neither immutability nor soft delete, so a real Azurite is an account that is weaker than declared; other
accounts are played by a small HTTP server that answers as Azure does.
"""
# ruff: noqa: E501 - rows of a table stay whole

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from ops_pipeline.adapters.azure_account import check_credentials, compare_account
from ops_pipeline.adapters.object_azure import open_azure_objects
from ops_pipeline.catalogue.backup_model import AzureBackups, Backups, BackupStoreSettings
from ops_pipeline.catalogue.base import AzureStore
from ops_pipeline_tests.testbed.azurite import ACCOUNT, KEY, Azurite, azurite


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


def backups(port: int, **settings: object) -> tuple[Backups, dict[str, str]]:
    """Settings with account keys everywhere, and the secrets they refer to."""
    key = {
        name: AzureStore(container=f"{name}-{uuid.uuid4().hex}", connection_string="env:KEY")
        for name in ("sets", "media", "state")
    }
    azure = AzureBackups.model_validate({**key, **settings})
    return Backups(store=BackupStoreSettings(azure=azure)), {"env:KEY": Azurite("", port).connection_string}


def with_sas(port: int, permissions: dict[str, str], **settings: object) -> tuple[Backups, dict[str, str]]:
    """The same with one SAS each: name in the catalogue → permissions."""
    found, secrets = backups(port, **settings)
    azure = found.store.azure
    assert azure is not None
    stores: dict[str, AzureStore] = {}
    for name, permission in permissions.items():
        container = (azure.media if "media" in name else azure.sets).container
        signature = generate_container_sas(
            ACCOUNT, container, KEY,
            permission=ContainerSasPermissions.from_string(permission), expiry=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        secrets[f"env:{name.upper()}"] = f"http://127.0.0.1:{port}/{ACCOUNT}/{container}?{signature}"
        stores[name] = AzureStore(container=container, sas_url=f"env:{name.upper()}")
    for store in (azure.sets, azure.media):
        made = AzureStore(container=store.container, connection_string="env:KEY")
        open_azure_objects(made, secrets.__getitem__).put("sets/x", b"x")
    return Backups(store=BackupStoreSettings(azure=azure.model_copy(update=stores))), secrets


def test_a_directory_has_no_account() -> None:
    directory = Backups(store=BackupStoreSettings(directory="x"))
    assert compare_account(directory, lambda _: "") == check_credentials(directory, lambda _: "") == ()


@pytest.mark.real
def test_an_account_that_is_weaker_than_declared(running_azurite: Azurite) -> None:
    declared, secrets = backups(running_azurite.port, immutability_days=25, soft_delete_days=14)
    azure = declared.store.azure
    assert azure is not None
    open_azure_objects(azure.sets, secrets.__getitem__).put("sets/x", b"x")
    assert compare_account(declared, secrets.__getitem__) == (
        "declared immutability_days 25 for `sets`, but the account has no immutability policy on container "
        f"{azure.sets.container}",
        "declared immutability_days 25 for `media`; unknown what the account has: Azure store "
        f"127.0.0.1:{running_azurite.port}/{ACCOUNT}/{azure.media.container} cannot read container "
        f"{azure.media.container}: 404 ContainerNotFound",
        "declared soft_delete_days 14 for the account of `sets`, but the account has soft delete switched off",
    )
    undeclared, secrets = backups(running_azurite.port)
    assert compare_account(undeclared, secrets.__getitem__) == ()


@pytest.mark.real
def test_what_cannot_be_asked_is_unknown_not_fine(running_azurite: Azurite) -> None:
    declared, secrets = with_sas(running_azurite.port, {"sets": "rwl", "media": "rwl"}, soft_delete_days=14)
    said = compare_account(declared, secrets.__getitem__)
    assert len(said) == 2
    for sentence, name in zip(said, ("sets", "media"), strict=True):
        assert sentence.startswith(
            f"declared soft_delete_days 14 for the account of `{name}`; unknown what the account has: "
        )
        assert "sig=" not in sentence
    nowhere, secrets = backups(9, immutability_days=25, soft_delete_days=14)
    said = compare_account(nowhere, secrets.__getitem__)
    assert ["unknown what the account has" in sentence for sentence in said] == [True, True, True]
    assert all("unknown whether" in sentence for sentence in check_credentials(nowhere, secrets.__getitem__))


CREDENTIALS = [
    ({"sets": "rwl", "media": "rwl", "prune": "rdl", "prune_media": "rdl"}, [
        "the credential of `sets` may overwrite backups, and container SETS was not seen to be immutable: whoever has it "
        "can destroy them",
        "the credential of `media` may overwrite backups, and container MEDIA was not seen to be immutable: whoever has "
        "it can destroy them",
    ]),
    ({"sets": "rwdl", "media": "rdl", "prune": "rl"}, [
        "the credential of `sets` may delete backups: take that permission from it, `prune` is there for that",
        "the credential of `sets` may overwrite backups, and container SETS was not seen to be immutable: whoever has it "
        "can destroy them",
        "the credential of `prune` may not delete: nothing will ever be pruned",
        "the credential of `media` may delete backups: take that permission from it, give `prune_media` one of its own "
        "for that",
    ]),
    ({"sets": "rl", "media": "rl"}, []),
]  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize(("permissions", "expected"), CREDENTIALS)
def test_credentials(running_azurite: Azurite, permissions: dict[str, str], expected: list[str]) -> None:
    declared, secrets = with_sas(running_azurite.port, permissions)
    azure = declared.store.azure
    assert azure is not None
    names = {"SETS": azure.sets.container, "MEDIA": azure.media.container}
    for word, container in names.items():
        expected = [sentence.replace(word, container) for sentence in expected]
    assert list(check_credentials(declared, secrets.__getitem__)) == expected
    for store in (azure.sets, azure.media):  # the probes changed nothing
        made = AzureStore(container=store.container, connection_string="env:KEY")
        assert [info.key for info in open_azure_objects(made, secrets.__getitem__).list("")] == ["sets/x"]


PROPERTIES = """<?xml version="1.0" encoding="utf-8"?><StorageServiceProperties><DeleteRetentionPolicy>\
<Enabled>{enabled}</Enabled>{days}</DeleteRetentionPolicy></StorageServiceProperties>"""
LISTING = """<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/>\
</EnumerationResults>"""
BLOB = """<Blob><Name>sets/x</Name><Properties><Creation-Time>Sat, 21 Nov 2026 00:00:00 GMT</Creation-Time>\
<Last-Modified>Sat, 21 Nov 2026 00:00:00 GMT</Last-Modified><Etag>0x1</Etag><Content-Length>1</Content-Length>\
<BlobType>BlockBlob</BlobType>{locked}</Properties></Blob>"""
LOCKED = """<ImmutabilityPolicyUntilDate>{until}</ImmutabilityPolicyUntilDate>\
<ImmutabilityPolicyMode>locked</ImmutabilityPolicyMode>"""


@contextmanager
def account(headers: dict[str, str], blobs: str = "", soft_delete: str = "") -> Iterator[int]:
    """An HTTP server that answers for an account with these settings; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = soft_delete if "comp=properties" in self.path else LISTING.format(blobs=blobs)
            body = "" if "comp=" not in self.path else body
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


BASE = {"x-ms-has-immutability-policy": "false", "x-ms-has-legal-hold": "false", "ETag": '"0x1"'}
POLICY = {**BASE, "x-ms-has-immutability-policy": "true"}
VERSIONED = {**BASE, "x-ms-immutable-storage-with-versioning-enabled": "true"}
ACCOUNTS = [
    (BASE, "", "but the account has no immutability policy on container CONTAINER"),
    ({**BASE, "x-ms-has-legal-hold": "true"}, "", "but the account has no immutability policy on container CONTAINER, only "
     "a legal hold"),
    (POLICY, "", "the account has a policy on container CONTAINER, for how many days and whether locked is unknown here: "
     "`az storage container immutability-policy show` tells"),
    (VERSIONED, "", "the account has version-level immutability, for how long is unknown: there is no object yet"),
    (VERSIONED, BLOB.format(locked=""), "but the account has its newest object locked for 0 days only"),
    (VERSIONED, BLOB.format(locked=LOCKED.format(until="Sat, 28 Nov 2026 00:00:00 GMT")),
     "but the account has its newest object locked for 7 days only"),
    (VERSIONED, BLOB.format(locked=LOCKED.format(until="Wed, 16 Dec 2026 00:00:00 GMT")), ""),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "blobs", "expected"), ACCOUNTS)
def test_immutability_as_azure_shows_it(headers: dict[str, str], blobs: str, expected: str) -> None:
    with account(headers, blobs) as port:
        declared, secrets = backups(port, immutability_days=25)
        azure = declared.store.azure
        assert azure is not None
        said = compare_account(declared, secrets.__getitem__)
    if not expected:
        assert said == ()
        return
    assert said[0].split("`sets`", 1)[1].strip(",; ") == expected.replace("CONTAINER", azure.sets.container)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("enabled", "days", "expected"),
    [
        ("true", "<Days>14</Days>", ()),
        ("true", "<Days>7</Days>", ("but the account has 7 days",)),
        ("false", "", ("but the account has soft delete switched off",)),
    ],
)
def test_soft_delete_as_azure_shows_it(enabled: str, days: str, expected: tuple[str, ...]) -> None:
    with account(BASE, soft_delete=PROPERTIES.format(enabled=enabled, days=days)) as port:
        declared, secrets = backups(port, soft_delete_days=14)
        said = compare_account(declared, secrets.__getitem__)
    assert tuple(sentence.rpartition("`sets`, ")[2] for sentence in said) == expected
