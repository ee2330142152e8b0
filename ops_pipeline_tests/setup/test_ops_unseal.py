"""`ops-unseal`, which shares no code with the project, opens what the project wrote and refuses what was changed.

The golden set was written once and never again: as long as it opens, old backups do.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops_pipeline.adapters.object_directory import ObjectDirectory
from ops_pipeline.core.backup.file_entry import FileEntry
from ops_pipeline.core.backup.file_list import read_list
from ops_pipeline.core.backup.records import Manifest
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.services.backup.manifests import decode_manifest, manifest_hash
from ops_pipeline.services.backup.streams import check_stream, open_object, read_stream
from ops_pipeline_tests.testbed.keys import Keys
from ops_pipeline_tests.testbed.sealed_set import CONTENT, ENTRIES, FILES, SealedSet, seal_set

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "ops-unseal"
GOLDEN = ROOT / "ops_pipeline_tests" / "golden" / "sealed_set"
GOLDEN_KEY = "sets/prod/2026/11/20/01K00000000000000000000001/manifest.json"
GOLDEN_SIGNER = (GOLDEN / "signer").read_text().strip()
GOLDEN_HASH = (GOLDEN / "manifest-sha256").read_text().strip()


def unseal(*arguments: str | Path, identity: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(SCRIPT), "--identity", str(identity), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, cwd="/", check=False)


@pytest.fixture
def stored(tmp_path: Path) -> SealedSet:
    """A fresh set in `tmp_path/store`, as a vault in a directory lays it out."""
    sets, media = ObjectDirectory(tmp_path / "store/sets"), ObjectDirectory(tmp_path / "store/media")
    return seal_set(sets, Keys(tmp_path).sealing(), media=media)


def test_it_is_short_and_stands_alone() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 200 and os.access(SCRIPT, os.X_OK)
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"cryptography", "zstandard", "pyrage"}


def test_it_checks_and_opens_every_part(stored: SealedSet, tmp_path: Path) -> None:
    manifest, identity = tmp_path / "store/sets" / stored.key, tmp_path / "identity"
    checked = unseal(manifest.parent, identity=identity)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.decode().splitlines() == [
        "listings/globals: 17 bytes, files 0 bytes, good",
        f"listings/dump: {len(CONTENT['listings', 'dump'])} bytes, files 0 bytes, good",
        "cache/dump: 256 bytes, files 0 bytes, good",
        f"photos/files: {stored.part('photos', 'files').stream.plain_size} bytes, files 315 bytes, good",
    ]
    assert b"do you trust it" in checked.stderr
    shown = unseal(manifest, "--part", "cache/dump", identity=identity)
    assert (shown.returncode, shown.stdout) == (0, CONTENT["cache", "dump"])
    written = unseal(manifest, "--part", "listings/dump", "-o", tmp_path / "dump", identity=identity)
    assert written.returncode == 0 and (tmp_path / "dump").read_bytes() == CONTENT["listings", "dump"]


def test_it_writes_the_files_with_names_links_holes_modes_and_times(stored: SealedSet, tmp_path: Path) -> None:
    manifest, tree = tmp_path / "store/sets" / stored.key, tmp_path / "tree"
    done = unseal(manifest, "--part", "photos/files", "--tree", tree, identity=tmp_path / "identity")
    assert done.returncode == 0, done.stderr
    names = {os.fsencode(path.relative_to(tree)) for path in tree.rglob("*")}
    assert names == {entry.path for entry in ENTRIES if entry.path}
    for entry in ENTRIES:
        path = tree / os.fsdecode(entry.path)
        status = path.lstat()
        if entry.kind in ("file", "directory"):
            assert (status.st_mode & 0o7777, status.st_mtime_ns) == (entry.mode, entry.mtime_ns)
        if entry.kind == "file":
            content = path.read_bytes()
            for start, length in reversed(entry.holes):
                assert content[start : start + length] == bytes(length)
                content = content[:start] + content[start + length :]
            assert content == FILES[entry.path] and status.st_size == entry.size
    assert (tree / "link").readlink() == Path("sub/photo.jpg")
    assert (tree / "sub/photo.jpg").samefile(tree / "same.jpg")

    some = unseal(
        manifest,
        "--part",
        "photos/files",
        "--only",
        "same",
        "--tree",
        tmp_path / "some",
        identity=tmp_path / "identity",
    )
    assert some.returncode == 0 and [path.name for path in (tmp_path / "some").iterdir()] == ["same.jpg"]


@pytest.mark.parametrize("what", ["manifest.json", "parts/listings.dump.sealed", "parts/photos.files.sealed", "media"])
def test_what_was_changed_is_refused_and_named(stored: SealedSet, tmp_path: Path, what: str) -> None:
    folder = (tmp_path / "store/sets" / stored.key).parent
    path = folder / what if what != "media" else next((tmp_path / "store/media/media").glob("??/*"))
    original = path.read_bytes()
    for changed in (
        original[:-20] + bytes([original[-20] ^ 1]) + original[-19:],
        original[: len(original) // 2],
        original + b"\0",
        b"",
    ):
        path.write_bytes(changed)
        refused = unseal(folder, identity=tmp_path / "identity")
        assert refused.returncode == 1 and b"Traceback" not in refused.stderr, refused.stderr
        assert what == "manifest.json" or path.name.encode() in refused.stderr
    path.unlink()
    assert unseal(folder, identity=tmp_path / "identity").returncode == 1


def test_wrong_keys_and_parts_are_refused_in_words(stored: SealedSet, tmp_path: Path) -> None:
    manifest = tmp_path / "store/sets" / stored.key
    Keys(tmp_path).new_identity("other")
    for arguments, identity, words in (
        ((manifest,), "other", b"No matching keys"),
        ((manifest, "--signer", GOLDEN_SIGNER), "identity", b"which is no --signer"),
        ((manifest, "--part", "photos/dump"), "identity", b"there is no part photos/dump, only listings/globals"),
        ((tmp_path / "nothing",), "identity", b"nothing"),
        ((manifest,), "nothing", b"nothing"),
    ):
        refused = unseal(*arguments, identity=tmp_path / identity)
        assert refused.returncode == 1 and words in refused.stderr and b"Traceback" not in refused.stderr


TREE = FileEntry(b"", "directory", 0o755, 0, 0)


@pytest.mark.parametrize(
    "hostile",
    [
        [FileEntry(b"../out", "directory", 0o755, 0, 0)],
        [FileEntry(b"/ops-unseal-out", "directory", 0o755, 0, 0)],
        [FileEntry(b"a/../../out", "directory", 0o755, 0, 0)],
        [FileEntry(b"a", "symlink", 0o777, 0, 0, link=b".."), FileEntry(b"a/out", "directory", 0o755, 0, 0)],
        [FileEntry(b"a", "hardlink", 0o777, 0, 0, link=b"../identity")],
        [FileEntry(b"a", "device", 0o777, 0, 0)],
        [FileEntry(b"empty", "file", 0o777, 0, 0), FileEntry(b"empty", "file", 0o777, 0, 0)],
        [FileEntry(b"same.jpg", "file", 0o777, 0, 0, size=299)],
        [FileEntry(b"same.jpg", "file", 0o777, 0, 0, size=310, holes=((0, 9),))],
    ],
    ids=["up", "absolute", "up from below", "through a link", "link out", "device", "twice", "too long", "too short"],
)
def test_a_hostile_list_writes_nothing_outside(tmp_path: Path, hostile: list[FileEntry]) -> None:
    # Signed by a trusted key, and still: a machine that takes backups may have been taken over.
    sets, media = ObjectDirectory(tmp_path / "store/sets"), ObjectDirectory(tmp_path / "store/media")
    made = seal_set(sets, Keys(tmp_path).sealing(), media=media, entries=[TREE, *hostile])
    before = set(tmp_path.rglob("*"))
    tree = tmp_path / "tree"
    refused = unseal(
        tmp_path / "store/sets" / made.key, "--part", "photos/files", "--tree", tree, identity=tmp_path / "identity"
    )
    assert refused.returncode == 1 and b"Traceback" not in refused.stderr
    assert {path for path in tmp_path.rglob("*") if tree not in (path, *path.parents)} == before
    assert not Path("/ops-unseal-out").exists()
    assert (tmp_path / "identity").stat().st_nlink == 1


# ------------------------------------------------------------------------------------------------ the golden set


def golden_manifest(keys: Path) -> Manifest:
    shutil.copy(GOLDEN / "identity", keys / "golden-identity")
    sealing = Keys(keys).sealing(identity="file:golden-identity", trusted_signers=(GOLDEN_SIGNER,))
    return decode_manifest(sealing, (GOLDEN / "sets" / GOLDEN_KEY).read_bytes(), GOLDEN_KEY)


def test_the_golden_set_opens_with_the_project(tmp_path: Path) -> None:
    manifest = golden_manifest(tmp_path)
    assert manifest_hash((GOLDEN / "sets" / GOLDEN_KEY).read_bytes()) == GOLDEN_HASH
    sealing = Keys(tmp_path).sealing(identity="file:golden-identity", trusted_signers=(GOLDEN_SIGNER,))
    sets, media = ObjectDirectory(GOLDEN / "sets"), ObjectDirectory(GOLDEN / "media")
    for part in manifest.parts:
        check_stream(sets, part.stream)
        content = b"".join(read_stream(sets, sealing, part.stream))
        if part.files is None:
            assert content == CONTENT[part.source, part.name]
            continue
        listed = list(read_list([content], entries=part.files.entries, plain_size=part.files.plain_size))
        assert tuple(one.entry for one in listed) == ENTRIES
        for one in listed:
            for piece in one.pieces:
                key = piece.reference.key
                assert open_object(sealing, key, media.get(key)) == FILES[one.entry.path]


def test_the_golden_set_opens_without_the_project(tmp_path: Path) -> None:
    opened = unseal(GOLDEN / "sets" / GOLDEN_KEY, "--signer", GOLDEN_SIGNER, identity=GOLDEN / "identity")
    assert opened.returncode == 0 and opened.stdout.count(b"good") == 4, opened.stderr


def test_the_golden_set_is_refused_by_whoever_does_not_trust_its_signer(tmp_path: Path) -> None:
    sealing = Keys(tmp_path).sealing()
    sealing.sign(b"")
    with pytest.raises(StoreDamaged, match=r"signature\.key"):
        decode_manifest(sealing, (GOLDEN / "sets" / GOLDEN_KEY).read_bytes(), GOLDEN_KEY)
