"""A Docker volume by courier: what is sent there, what happens when it is killed, what is not there."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops_pipeline.adapters.trees.courier import SHIPPED
from ops_pipeline.adapters.volume_tree import VolumeTree
from ops_pipeline.errors import NotFound, OpsError, Transient, Unavailable
from ops_pipeline.ports import FileEntry
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.azurite import docker
from ops_pipeline_tests.testbed.courier import ENGINE, courier_image, volume
from ops_pipeline_tests.testbed.trees import ROOT, make_live


def test_what_is_sent_to_a_courier_needs_nothing_else_of_the_project() -> None:
    known: set[str] = set()
    for name in SHIPPED:
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        for node in ast.walk(ast.parse(Path(found.origin).read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module in known or module.split(".")[0] in sys.stdlib_module_names, (name, module)
        known.add(name)


def by_courier(name: str, image: str = "", direct: bool | None = False) -> VolumeTree:
    return VolumeTree(
        "files", name, docker_url=ENGINE, host="local", image=image or courier_image(), direct=direct,
        labels={"ops.testbed": testbed_id()},
    )  # fmt: skip


@pytest.fixture
def tree() -> Iterator[VolumeTree]:
    with volume() as name:
        made = by_courier(name)
        make_live(made, [(ROOT, b""), (FileEntry(b"f", "file", 0o600, 7, 8, size=3, mtime_ns=10**18), b"abc")])
        try:
            yield made
        finally:
            made.close()


@pytest.mark.real
def test_a_courier_is_shut_in_and_may_be_killed_at_any_time(tree: VolumeTree) -> None:
    container = tree._container
    form = (
        "{{.HostConfig.NetworkMode}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.AutoRemove}}"
    )
    assert docker("inspect", "--format", form, container) == "none true [ALL] true"
    walked = tree.walk()
    assert next(walked).path == b""
    assert [piece for _, piece, _ in tree.read([entry for entry in walked if entry.kind == "file"])] == [b"abc"]

    def interrupted() -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
        yield ROOT, iter(())
        for number in range(200):
            if number == 3:
                docker("kill", container)
            yield FileEntry(b"%03d" % number, "file", 0o600, 0, 0, size=1 << 20), iter([bytes(1 << 20)])

    tree.beside("kill")
    with pytest.raises(Transient):
        tree.write("kill", interrupted())
    assert [entry.path for entry in tree.walk()] == [b"", b"f"], "another courier was started"
    assert tree._container != container
    tree.drop_beside("kill")


@pytest.mark.real
def test_both_ways_see_the_same(tree: VolumeTree) -> None:
    direct = by_courier(tree._volume, direct=True)
    assert list(direct.walk()) == list(tree.walk())
    assert direct.check() == () == tuple(tree.check())
    direct.close()


@pytest.mark.real
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "courier"])
def test_a_volume_that_is_gone_is_told_and_made_again_by_a_restore(direct: bool) -> None:
    with volume() as name:
        docker("volume", "rm", name)
        lost = by_courier(name, direct=direct)
        for call in (lost.check, lambda: list(lost.walk()), lost.holds):
            with pytest.raises(NotFound, match=name):
                call()
        assert name not in docker("volume", "ls", "--quiet"), "looking for it does not make it"
        lost.beside("seed")
        make_live(lost, [(ROOT, b"")])
        assert [entry.path for entry in lost.walk()] == [b""]
        lost.close()


@pytest.mark.real
def test_what_is_missing_is_told_with_what_to_do() -> None:
    with volume() as name:
        with pytest.raises(Unavailable, match="make images"):
            by_courier(name, image="ops-testbed/none:none").check()
        away = VolumeTree("files", name, docker_url="unix:///nowhere.sock", host="away", image="x")
        with pytest.raises(OpsError, match="does not answer"):
            away.check()
