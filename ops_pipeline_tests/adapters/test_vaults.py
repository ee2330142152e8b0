"""Which vault the catalogue asks for: folders or containers, and whose credentials delete."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from ops_pipeline.adapters.object_azure import open_azure_objects
from ops_pipeline.adapters.vaults import open_prune_vault, open_vault
from ops_pipeline.catalogue.backup_model import AzureBackups, Backups, BackupStoreSettings
from ops_pipeline.catalogue.base import AzureStore
from ops_pipeline.defs.resources import build_platform
from ops_pipeline.errors import Permanent
from ops_pipeline_tests.catalogue.test_wrong_backups import ALL, DIRECTORY
from ops_pipeline_tests.testbed.azurite import ACCOUNT, KEY, Azurite, azurite

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


def test_a_directory_has_three_folders(tmp_path: Path) -> None:
    backups = Backups(store=BackupStoreSettings(directory="kept"))
    for opened in (open_vault, open_prune_vault):
        vault = opened(backups, tmp_path, lambda _: "")
        assert not (tmp_path / "kept").exists() or opened is open_prune_vault  # nothing is touched before it is used
        key = f"{opened.__name__}/x"
        vault.sets.put(key, b"1")
        vault.media.put(key, b"2")
        vault.sets.flush()
        vault.media.flush()
        vault.state.write(key, b"3")
        for folder, content in (("sets", b"1"), ("media", b"2"), ("state", b"3")):
            assert (tmp_path / "kept" / folder / key).read_bytes() == content


def test_no_place_is_refused(tmp_path: Path) -> None:
    for opened in (open_vault, open_prune_vault):
        with pytest.raises(Permanent, match="names no place for backups"):
            opened(Backups(store=BackupStoreSettings()), tmp_path, lambda _: "")


@pytest.mark.real
def test_only_the_pruning_credential_deletes(running_azurite: Azurite, tmp_path: Path) -> None:
    port, secrets = running_azurite.port, {"env:KEY": running_azurite.connection_string}
    names = {name: f"{name}-{uuid.uuid4().hex}" for name in ("sets", "media", "state")}

    def store(name: str, permission: str) -> AzureStore:
        reference = f"env:{name}-{permission}".replace("-", "_")
        signature = generate_container_sas(
            ACCOUNT, names[name], KEY,
            permission=ContainerSasPermissions.from_string(permission), expiry=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        secrets[reference] = f"http://127.0.0.1:{port}/{ACCOUNT}/{names[name]}?{signature}"
        return AzureStore(container=names[name], sas_url=reference)

    for name in names:
        made = AzureStore(container=names[name], connection_string="env:KEY")
        open_azure_objects(made, secrets.__getitem__).put("made", b"")
    azure = AzureBackups(
        sets=store("sets", "rwl"),
        media=store("media", "rwl"),
        state=store("state", "rwdl"),
        prune=store("sets", "rdl"),
        prune_media=store("media", "rdl"),
    )
    backups = Backups(store=BackupStoreSettings(azure=azure))
    writer = open_vault(backups, tmp_path, secrets.__getitem__)
    pruner = open_prune_vault(backups, tmp_path, secrets.__getitem__)
    for objects, pruned in ((writer.sets, pruner.sets), (writer.media, pruner.media)):
        info = objects.put("a/b", b"x")
        with pytest.raises(Permanent, match="access refused"):
            objects.delete("a/b")
        with pytest.raises(Permanent, match="access refused"):
            pruned.put("a/c", b"x")
        pruned.delete("a/b", etag=info.etag)
        assert [found.key for found in objects.list("a/")] == []
    etag = writer.state.write("locks/prod", b"1", if_absent=True)
    pruner.state.write("locks/prod", b"2", if_match=etag)
    pruner.state.delete("locks/prod")


def test_the_platform_opens_the_vault_once_and_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_PROJECT_ROOT", str(tmp_path))
    path = tmp_path / "services.yaml"
    path.write_text(
        ALL.replace(DIRECTORY, "{directory: kept}").replace(
            "  recipients: [age1" + "q" * 58 + "]\n", "  recipients_file: gone\n"
        )
    )
    platform = build_platform(path)
    (tmp_path / "gone").write_text("")
    vault = platform.vault()
    assert platform.vault() is vault
    assert platform.prune_vault is not None
    vault.sets.put("sets/x", b"1")
    vault.sets.flush()
    assert platform.prune_vault().sets.get("sets/x") == b"1"
    assert (tmp_path / "kept/sets/sets/x").exists()


def test_nothing_heavy_is_imported_for_it() -> None:
    probe = (
        "import sys, ops_pipeline.defs.resources, ops_pipeline.adapters.vaults, ops_pipeline.adapters.object_azure, "
        "ops_pipeline.adapters.object_directory, ops_pipeline.adapters.azure_account\n"
        "heavy = ('azure', 'requests', 'cryptography', 'pyrage', 'zstandard', 'docker', 'dagster')\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy])"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
