"""Objects in Azure on bad days: refusals, overload, lost answers, cut connections, silence; blocks; credentials.

Every fault is done to a real Azurite by a proxy in front of it. Whatever happens, nothing shows that is not whole.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from ops_pipeline.adapters.object_azure import AzureObjects, open_azure_objects
from ops_pipeline.catalogue.base import AzureStore as Settings
from ops_pipeline.errors import Conflict, NotFound, OpsError, Permanent, Transient
from ops_pipeline_tests.testbed.azurite import ACCOUNT, KEY, Azurite, azurite
from ops_pipeline_tests.testbed.faulty_proxy import FaultyProxy

BLOCKS = [bytes([65 + index]) * 300_000 for index in range(3)]
WHOLE = b"".join(BLOCKS)


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


@pytest.fixture(scope="module")
def container(running_azurite: Azurite) -> str:
    name = f"c{uuid.uuid4().hex}"
    store_at(running_azurite.port, name).put("warm", b"")
    return name


@pytest.fixture
def proxy(running_azurite: Azurite) -> Iterator[FaultyProxy]:
    with FaultyProxy(running_azurite.port) as faulty:
        yield faulty


def store_at(
    port: int, container: str, *, retries: int = 2, read_timeout: float = 20, prefix: str = ""
) -> AzureObjects:
    connection = Azurite("", port).connection_string
    settings = Settings(container=container, connection_string="env:X", prefix=prefix)
    return open_azure_objects(settings, lambda _: connection, retries=retries, read_timeout=read_timeout)


def sas_store(port: int, permission: str, container: str) -> AzureObjects:
    signature = generate_container_sas(
        ACCOUNT, container, KEY,
        permission=ContainerSasPermissions.from_string(permission), expiry=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{container}?{signature}"
    return open_azure_objects(Settings(container=container, sas_url="env:X"), lambda _: url, retries=0)


def put(store: AzureObjects, key: str) -> None:
    store.put(key, WHOLE)
    store.flush()


def blocks(store: AzureObjects, key: str) -> None:
    writer = store.begin(key)
    for index, block in enumerate(BLOCKS):
        writer.block(index, block)
    assert writer.commit(len(BLOCKS)).size == len(WHOLE)


def assert_whole_or_nothing(direct: AzureObjects, key: str) -> bool:
    """Look past the proxy: whether there is an object, which is whole then."""
    found = [(info.key, info.size) for info in direct.list(key)]
    info = direct.stat(key)
    if info is None:
        assert found == []
        return False
    assert found == [(key, len(WHOLE))]
    assert direct.get(key) == WHOLE
    return True


PASSING = [
    ("500", "", 1),
    ("503", "", 1),
    ("408", "", 1),
    ("429", "", 1),
    ("lost", "", 1),
    ("cut-request", "", 1),
    ("503", "comp=block&", 1),
    ("cut-request", "comp=block&", 1),
    ("lost", "comp=block&", 1),
    ("500", "comp=blocklist", 1),
    ("lost", "comp=blocklist", 1),
]


@pytest.mark.real
def test_faults_that_pass_are_repaired(proxy: FaultyProxy, running_azurite: Azurite, container: str) -> None:
    """All at once, one thread each: every repetition waits a second or two."""

    def attempt(number: int) -> None:
        kind, match, times = PASSING[number]
        with FaultyProxy(running_azurite.port) as own:
            store = store_at(own.port, container)
            key = f"passing/{number:02}"
            fault = own.add(kind, match or key, times)
            (blocks if match else put)(store, key)
            assert fault.done == 1, (kind, match)
            assert assert_whole_or_nothing(store_at(running_azurite.port, container), key), (kind, match)
            with pytest.raises(Conflict):  # it knows its own object from anybody else's
                put(store, key)

    with ThreadPoolExecutor(len(PASSING)) as pool:
        list(pool.map(attempt, range(len(PASSING))))


LASTING = [
    ("500", "InternalError", Transient),
    ("503", "ServerBusy", Transient),
    ("429", "TooManyRequests", Transient),
    ("cut-request", "", Transient),
    ("lost", "", Transient),
    ("409", "AccountBeingCreated", Permanent),
    ("409", "BlobImmutableDueToPolicy", Permanent),
    ("412", "ConditionNotMet", Conflict),
    ("409", "BlobAlreadyExists", Conflict),
    ("403", "AuthorizationPermissionMismatch", Permanent),
]


@pytest.mark.real
@pytest.mark.parametrize("way", [put, blocks])
@pytest.mark.parametrize(("kind", "code", "expected"), LASTING)
def test_faults_that_last_are_told(
    proxy: FaultyProxy,
    running_azurite: Azurite,
    container: str,
    way: object,
    kind: str,
    code: str,
    expected: type[OpsError],
) -> None:
    store, direct = store_at(proxy.port, container, retries=0), store_at(running_azurite.port, container)
    key = f"lasting/{uuid.uuid4().hex}"
    # The writing request only: reading back what is there still works.
    proxy.add(kind, f"PUT /{ACCOUNT}/{container}/{key}" if way is put else "comp=blocklist", 99, code=code)
    with pytest.raises(expected) as told:
        way(store, key)  # type: ignore[operator]
    if expected is Conflict:
        assert not assert_whole_or_nothing(direct, key)
        return
    assert type(told.value) is expected
    assert "cannot write" in str(told.value)
    if code:
        assert code in str(told.value) or "no answer" in str(told.value)
    if "Immutable" in code:
        assert "immutability policy" in str(told.value)
    assert assert_whole_or_nothing(direct, key) == (kind == "lost")


@pytest.mark.real
def test_a_commit_repeated_after_all_its_answers_were_lost_is_recognised(proxy: FaultyProxy, container: str) -> None:
    store = store_at(proxy.port, container, retries=0)
    writer = store.begin("again/blocks")
    for index, block in enumerate(BLOCKS):
        writer.block(index, block)
    proxy.add("lost", "comp=blocklist")
    with pytest.raises(Transient, match="no answer"):
        writer.commit(3)
    assert writer.commit(3).size == len(WHOLE)
    proxy.add("lost", "again/put")
    with pytest.raises(Transient, match="no answer"):
        store.put("again/put", WHOLE)
    assert store.put("again/put", WHOLE).size == len(WHOLE)
    with pytest.raises(Conflict):  # that was settled: the same again is another one
        store.put("again/put", WHOLE)


@pytest.mark.real
def test_a_lost_answer_never_hides_that_somebody_else_was_first(
    proxy: FaultyProxy, running_azurite: Azurite, container: str
) -> None:
    ours, theirs = store_at(proxy.port, container, retries=0), store_at(running_azurite.port, container)
    theirs.put("first/k", WHOLE)
    writer = ours.begin("first/k")
    for index, block in enumerate(BLOCKS):
        writer.block(index, block)
    proxy.add("lost", "comp=blocklist")
    with pytest.raises(Transient):
        writer.commit(3)
    with pytest.raises(Conflict):
        writer.commit(3)


@pytest.mark.real
def test_silence_is_given_up_in_bounded_time(proxy: FaultyProxy, running_azurite: Azurite, container: str) -> None:
    store = store_at(proxy.port, container, retries=0, read_timeout=0.5)
    proxy.add("slow", "silent", 99)
    for attempt in (
        lambda: store.put("silent", b"x"),
        lambda: store.stat("silent"),
        lambda: store.get("silent"),
        lambda: store.delete("silent"),
        lambda: list(store.list("silent")),
        lambda: store.begin("silent").block(0, b"x"),
    ):
        with pytest.raises(Transient, match="no answer"):
            attempt()
    assert not assert_whole_or_nothing(store_at(running_azurite.port, container), "silent")


@pytest.mark.real
def test_reads_that_are_cut_are_repeated_whole_or_told(proxy: FaultyProxy, container: str) -> None:
    store = store_at(proxy.port, container, retries=1)
    put(store, "read")
    cut = proxy.add("cut-answer", "GET ")
    assert store.get("read", 5, 400_000) == WHOLE[5:400_005]
    assert cut.done == 1
    proxy.add("cut-answer", "GET ", 99)
    with pytest.raises(Transient, match="cannot read read: no answer"):
        store.get("read")


@pytest.mark.real
def test_a_deletion_whose_answer_was_lost_is_done(proxy: FaultyProxy, container: str) -> None:
    store = store_at(proxy.port, container)
    info = store.put("delete/k", b"1")
    lost = proxy.add("lost", "DELETE ")
    store.delete("delete/k", etag=info.etag)
    assert lost.done == 1
    assert store.stat("delete/k") is None


@pytest.mark.real
def test_small_objects_are_one_request_and_blocks_one_each(proxy: FaultyProxy, container: str) -> None:
    store = store_at(proxy.port, container)
    put(store, "requests/put")
    blocks(store, "requests/blocks")
    store.get("requests/blocks", 299_999, 2)
    store.flush()
    verbs = [line.split(" ")[0] for line in proxy.requests]
    assert verbs == ["PUT", "PUT", "PUT", "PUT", "PUT", "GET"]
    # Block ids have one length within a blob, which Azure demands and Azurite does not.
    ids = [line.partition("blockid=")[2].split("&")[0].split(" ")[0] for line in proxy.requests if "blockid=" in line]
    assert len({len(name) for name in ids}) == 1
    assert len(set(ids)) == 3


@pytest.mark.real
def test_more_blocks_than_azure_takes_are_refused_in_clear_words(running_azurite: Azurite, container: str) -> None:
    writer = store_at(running_azurite.port, container).begin("huge")
    with pytest.raises(Permanent, match=r"huge needs more than 50,000 blocks.*390 GiB") as refused:
        writer.block(50_000, b"x")
    assert "several sources" in refused.value.hint


@pytest.mark.real
def test_sixteen_workers_keep_their_connections(
    running_azurite: Azurite, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = running_azurite.connection_string
    settings = Settings(container=container, connection_string="env:X", prefix="pool")
    store = open_azure_objects(settings, lambda _: connection, workers=16)
    with caplog.at_level(logging.WARNING, logger="urllib3"), ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"{number}", b"x" * 10_000), range(96)))
    assert not [record for record in caplog.records if "pool is full" in record.getMessage()]
    assert len(list(store.list(""))) == 96


@pytest.mark.real
def test_prefixes_share_a_container(running_azurite: Azurite, container: str) -> None:
    one, other = (store_at(running_azurite.port, container, prefix=prefix) for prefix in ("p/one", "p/two/"))
    one.put("k", b"1")
    other.put("k", b"2")
    assert [info.key for info in one.list("")] == ["k"]
    assert (one.get("k"), other.get("k")) == (b"1", b"2")


@pytest.mark.real
def test_a_credential_that_may_not_delete_is_enough_to_take_backups(running_azurite: Azurite, container: str) -> None:
    store = sas_store(running_azurite.port, "rwl", container)  # Put Block and Put Block List need w
    put(store, "sas/put")
    blocks(store, "sas/blocks")
    for write in (put, blocks):
        with pytest.raises(Conflict):
            write(store, "sas/put")
    with pytest.raises(Permanent, match="access refused") as refused:
        store.delete("sas/put")
    assert "sig=" not in str(refused.value)
    assert store.get("sas/blocks") == WHOLE
    with pytest.raises(NotFound):
        store.get("sas/none")


@pytest.mark.real
def test_nothing_listens() -> None:
    with pytest.raises(Transient, match="no answer"):
        store_at(9, "nowhere", retries=0).stat("k")
