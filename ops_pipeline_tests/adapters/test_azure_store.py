"""What only Azure Blob can do to us: answers that get lost, time-outs, refused identities, secrets in messages."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from ops_pipeline.adapters.azure_store import AzureStore, open_azure_store
from ops_pipeline.catalogue.model import AzureStore as Settings
from ops_pipeline.errors import Conflict, Permanent, Transient
from ops_pipeline_tests.testbed.azurite import ACCOUNT, KEY, Azurite, azurite
from ops_pipeline_tests.testbed.lossy_proxy import LossyProxy

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


@pytest.fixture
def proxy(running_azurite: Azurite) -> Iterator[LossyProxy]:
    with LossyProxy(running_azurite.port) as lossy:
        yield lossy


def store_at(port: int, *, retries: int = 2, container: str = "") -> AzureStore:
    connection = Azurite("", port).connection_string
    settings = Settings(container=container or f"c{uuid.uuid4().hex}", connection_string="env:X", prefix="ledger")
    return open_azure_store(settings, lambda _: connection, connection_timeout=2, read_timeout=2, retries=retries)


def sas_store(port: int, permission: str, hours: float, *, container: str) -> AzureStore:
    signature = generate_container_sas(
        ACCOUNT,
        container,
        KEY,
        permission=ContainerSasPermissions.from_string(permission),
        expiry=datetime.now(UTC) + timedelta(hours=hours),
    )
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{container}?{signature}"
    settings = Settings(container=container, sas_url="env:X")
    return open_azure_store(settings, lambda _: url, connection_timeout=2, read_timeout=2, retries=0)


@pytest.mark.real
def test_a_write_whose_answer_was_lost_is_recognised_as_our_own(proxy: LossyProxy) -> None:
    store = store_at(proxy.port)
    store.write("warm", b"")
    proxy.lose = 1
    first = store.write("k", b"1", if_absent=True)
    proxy.lose = 1
    second = store.write("k", b"2", if_match=first)
    assert proxy.lost == 2
    blob = store.read("k")
    assert blob is not None
    assert (blob.data, blob.etag) == (b"2", second)
    with pytest.raises(Conflict):
        store.write("k", b"3", if_match=first)


@pytest.mark.real
def test_a_write_repeated_by_the_caller_after_all_answers_were_lost(proxy: LossyProxy) -> None:
    store = store_at(proxy.port, retries=0)
    store.write("warm", b"")
    proxy.lose = 1
    with pytest.raises(Transient, match="no answer"):
        store.write("k", b"1", if_absent=True)
    etag = store.write("k", b"1", if_absent=True)
    blob = store.read("k")
    assert blob is not None
    assert (blob.data, blob.etag) == (b"1", etag)
    with pytest.raises(Conflict):  # that was settled: the same write again is another one
        store.write("k", b"1", if_absent=True)


@pytest.mark.real
def test_a_lost_answer_never_hides_that_somebody_else_was_first(running_azurite: Azurite, proxy: LossyProxy) -> None:
    container = f"c{uuid.uuid4().hex}"
    ours = store_at(proxy.port, retries=0, container=container)
    theirs = store_at(running_azurite.port, container=container)
    ours.write("warm", b"")
    proxy.lose = 1
    with pytest.raises(Transient):
        ours.write("k", b"same", if_absent=True)
    theirs.delete("k")
    theirs.write("k", b"same", if_absent=True)
    with pytest.raises(Conflict):
        ours.write("k", b"same", if_absent=True)


@pytest.mark.real
def test_a_service_that_hangs_is_given_up_in_bounded_time(running_azurite: Azurite) -> None:
    store = store_at(running_azurite.port, retries=1)
    etag = store.write("k", b"1")
    running_azurite.pause()
    try:
        for attempt in (lambda: store.read("k"), lambda: store.write("k", b"2", if_match=etag)):
            started = time.monotonic()
            with pytest.raises(Transient, match=r"Azure store 127\.0\.0\.1:\d+/.* cannot (read|write) k: no answer"):
                attempt()
            assert time.monotonic() - started < 12
    finally:
        running_azurite.resume()
    assert store.write("k", b"2", if_match=etag)  # also if the one given up had arrived


@pytest.mark.real
def test_nothing_listens() -> None:
    with pytest.raises(Transient, match="no answer"):
        store_at(9, retries=0).read("k")


@pytest.mark.real
def test_sas(running_azurite: Azurite) -> None:
    container = f"c{uuid.uuid4().hex}"
    port = running_azurite.port
    with pytest.raises(Permanent, match="access refused"):  # it may write blobs but not make containers
        sas_store(port, "rwdlc", 1, container=container).write("k", b"1")
    store_at(port, container=container).write("x", b"")
    store = sas_store(port, "rwdlc", 1, container=container)
    etag = store.write("k", b"1", if_absent=True)
    store.write("k", b"2", if_match=etag)
    assert [info.key for info in store.list("")] == ["k", "ledger/x"]
    with pytest.raises(Permanent, match="access refused") as refused:
        sas_store(port, "rl", 1, container=container).write("k", b"3")
    with pytest.raises(Permanent, match="access refused") as expired:
        sas_store(port, "rwdlc", -1, container=container).read("k")
    for error in (refused.value, expired.value):
        assert "sig=" not in str(error)
        assert "Storage Blob Data Contributor" in error.hint
    blob = store.read("k")
    assert blob is not None
    assert blob.data == b"2"


@pytest.mark.real
def test_a_wrong_key_is_refused_and_not_shown(running_azurite: Azurite) -> None:
    wrong = running_azurite.connection_string.replace("Eby8", "AAAA")
    store = open_azure_store(Settings(container="c-wrong", connection_string="env:X"), lambda _: wrong)
    with pytest.raises(Permanent, match="access refused") as refused:
        store.write("k", b"")
    assert "AAAA" not in str(refused.value)


@pytest.mark.real
def test_prefixes_share_a_container(running_azurite: Azurite) -> None:
    container = f"c{uuid.uuid4().hex}"
    one, other = (
        open_azure_store(
            Settings(container=container, connection_string="env:X", prefix=prefix),
            lambda _: running_azurite.connection_string,
        )
        for prefix in ("team-a/ledger", "team-b")
    )
    one.write("k", b"1", if_absent=True)
    other.write("k", b"2", if_absent=True)
    assert [info.key for info in one.list("")] == ["k"]
    blob = one.read("k")
    assert blob is not None
    assert blob.data == b"1"


@pytest.mark.parametrize("connection", ["", "nonsense", "AccountKey=c2VjcmV0;Endpoint"])
def test_a_malformed_connection_string_is_named_and_not_shown(connection: str) -> None:
    store = open_azure_store(Settings(container="c", connection_string="env:X"), lambda _: connection)
    with pytest.raises(Permanent, match="malformed") as refused:
        store.read("k")
    assert "c2VjcmV0" not in str(refused.value)


def test_the_sdk_is_imported_only_when_the_store_is_used() -> None:
    probe = "import sys, ops_pipeline.adapters.stores; print([m for m in sys.modules if m.split('.')[0] == 'azure'])"
    done = subprocess.run([sys.executable, "-c", probe], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
