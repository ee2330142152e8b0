"""Sets somebody made on purpose, and signed with the right key: refused with one error, nothing written outside.

Whoever can do that holds the signing key; what is signed by another key is not even listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops_pipeline.adapters.file_tree import DirectoryTree
from ops_pipeline.core.backup.file_list import EMPTY_SHA256, ListedFile, first_line, last_line, line_of
from ops_pipeline.core.backup.records import Manifest, Part, SetKey, Trigger
from ops_pipeline.errors import BadInput, OpsError, PolicyRefused, StoreDamaged
from ops_pipeline.ports import FileEntry
from ops_pipeline.services.backup.manifests import encode_manifest
from ops_pipeline.services.backup.restore import plan_restore, restore, unfinished_restore
from ops_pipeline.services.backup.sets import list_sets
from ops_pipeline.services.backup.streams import write_stream
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.fakes.sealing import FakeSealing

Change = Callable[[Part, Part], Part]
HUGE = 1 << 60


def bed_with_two_sets(folder: Path) -> tuple[Bed, Manifest, Manifest]:
    """The photos are a real directory below `folder`, so that a name that leads out of it would be seen."""
    bed = backup_bed(backup_catalogue(photos=True))
    (folder / "photos").mkdir()
    (folder / "photos" / "house.jpg").write_bytes(b"front")
    bed.data["prod"][2] = DirectoryTree("photos", folder / "photos")
    made = []
    for _ in range(2):
        made.append(take_backup(bed.platform(), "prod", trigger=Trigger.MANUAL, progress=quiet))
        bed.clock.advance(3600)
    return bed, made[0], made[1]


def rewrite(bed: Bed, key: str, data: bytes) -> None:
    bed.vault.sets.delete(key)
    bed.vault.sets.put(key, data)
    bed.vault.sets.flush()


def forge(bed: Bed, manifest: Manifest, sealing: FakeSealing | None = None) -> None:
    """Put this manifest in the place of the one it claims to be."""
    key = SetKey("prod", manifest.id, manifest.started_at).manifest
    rewrite(bed, key, encode_manifest(sealing or bed.vault.sealing, manifest))


def with_part(manifest: Manifest, source: str, change: Callable[[Part], Part]) -> Manifest:
    return replace(manifest, parts=tuple(change(p) if p.source == source else p for p in manifest.parts))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_refused(bed: Bed, folder: Path, set_id: str, error: type[OpsError], words: str) -> None:
    live, files = database(bed).live.copy(), everything(folder)
    with pytest.raises(error, match=words):
        restore(
            bed.platform(),
            plan_restore(bed.platform(), "prod", set_id=set_id),
            confirm=lambda text: True,
            progress=quiet,
        )
    assert database(bed).live == live and everything(folder) == files
    assert not database(bed).besides and not database(bed, "cache").besides
    assert unfinished_restore(bed.platform(), "prod") is None


def other_key(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(mine.stream, key=other.stream.key))


def other_stream(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(other.stream, key=mine.stream.key))


def climbing_name(mine: Part, other: Part) -> Part:
    return replace(mine, name="../../../../evil")


def endless(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(mine.stream, plain_size=HUGE))


def bomb(mine: Part, other: Part) -> Part:
    (block,) = mine.stream.blocks
    blocks = (replace(block, plain_size=HUGE),)
    return replace(mine, stream=replace(mine.stream, plain_size=HUGE, blocks=blocks))


def one_byte_more(mine: Part, other: Part) -> Part:
    (block,) = mine.stream.blocks
    size = block.plain_size + 1
    return replace(mine, stream=replace(mine.stream, plain_size=size, blocks=(replace(block, plain_size=size),)))


def no_blocks(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(mine.stream, blocks=()))


def many_blocks(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(mine.stream, blocks=mine.stream.blocks * 1000))


def other_lock(mine: Part, other: Part) -> Part:
    return replace(mine, stream=replace(mine.stream, wrapped_key=other.stream.wrapped_key))


def other_kind(mine: Part, other: Part) -> Part:
    return replace(mine, kind="mysql")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (other_key, StoreDamaged, "lies in another place|lies outside"),
        (other_stream, StoreDamaged, "listings: stored object"),
        (climbing_name, OpsError, "another place|manifest"),
        (endless, StoreDamaged, "does not add up"),
        (bomb, StoreDamaged, "does not add up"),
        (one_byte_more, StoreDamaged, "ought to hold"),
        (no_blocks, StoreDamaged, "does not add up"),
        (many_blocks, StoreDamaged, "does not add up"),
        (other_lock, StoreDamaged, "belongs to another object"),
        (other_kind, BadInput, "is mysql in the set and postgres in the catalogue"),
    ],
)
def test_parts_that_are_not_what_they_say(tmp_path: Path, change: Change, error: type[OpsError], words: str) -> None:
    bed, older, newer = bed_with_two_sets(tmp_path)
    dump = next(part for part in older.parts if part.source == "listings" and part.name == "dump")

    def changed(part: Part) -> Part:
        return change(part, dump) if part.name == "dump" else part

    forge(bed, with_part(newer, "listings", changed))
    assert_refused(bed, tmp_path, newer.id, error, words)


def test_a_stranger_s_signature_is_listed_as_damage_only(tmp_path: Path) -> None:
    bed, older, newer = bed_with_two_sets(tmp_path)
    forge(bed, newer, FakeSealing("stranger"))
    listing = list_sets(bed.platform(), "prod")
    assert [one.id for one in listing.sets] == [older.id] and [one.id for one in listing.damaged] == [newer.id]
    assert_refused(bed, tmp_path, newer.id, StoreDamaged, "not signed by a trusted key")
    assert plan_restore(bed.platform(), "prod").set_id == older.id


def test_an_identity_of_somebody_else_opens_nothing(tmp_path: Path) -> None:
    bed, _, newer = bed_with_two_sets(tmp_path)
    bed.vault.sealing.identity = False  # type: ignore[attr-defined]
    assert_refused(bed, tmp_path, newer.id, PolicyRefused, "no identity here opens")


def listed(path: bytes, kind: str = "file", **more: object) -> ListedFile:
    entry = FileEntry(path, kind, 0o755 if kind == "directory" else 0o644, 0, 0, mtime_ns=1, **more)  # type: ignore[arg-type]
    return ListedFile(entry, EMPTY_SHA256 if kind == "file" else "")


TREE = listed(b"", "directory")
LISTS = {
    "climbing": [TREE, listed(b"../evil")],
    "climbing later": [TREE, listed(b"a", "directory"), listed(b"a/../../evil")],
    "absolute": [TREE, listed(b"/evil")],
    "empty name": [TREE, listed(b"a", "directory"), listed(b"a//evil")],
    "NUL": [TREE, listed(b"a\0evil")],
    "below a link": [TREE, listed(b"a", "symlink", link=b".."), listed(b"a/evil")],
    "a hard link out": [TREE, listed(b"a", "hardlink", link=b"../secret")],
    "a device": [TREE, listed(b"sda", "block")],
    "twice": [TREE, listed(b"a"), listed(b"a")],
    "without its directory": [TREE, listed(b"a/b/evil")],
    "the restore's own": [TREE, listed(b".ops-hold-aaaa", "directory")],
    "larger than anything": [TREE, listed(b"a", size=HUGE)],
    "more holes than file": [TREE, listed(b"a", size=10, holes=((0, HUGE),))],
}


@pytest.mark.parametrize("what", LISTS)
def test_lists_of_files_that_lead_out(tmp_path: Path, what: str) -> None:
    (tmp_path / "secret").write_bytes(b"not yours")
    bed, _, newer = bed_with_two_sets(tmp_path)
    part = next(part for part in newer.parts if part.source == "photos")
    lines = LISTS[what]
    size = sum(one.entry.size for one in lines)
    data = b"".join([first_line(), *map(line_of, lines), last_line(len(lines), size)])
    rest = [data]
    bed.vault.sets.delete(part.stream.key)
    stream = write_stream(
        bed.vault.sets,
        bed.vault.sealing,
        part.stream.key,
        part.stream.identity,
        lambda count: rest.pop() if rest else b"",
    )
    assert part.files is not None
    files = replace(part.files, entries=len(lines), plain_size=size)
    forge(bed, with_part(newer, "photos", lambda one: replace(one, stream=stream, files=files)))
    assert_refused(bed, tmp_path, newer.id, BadInput, "list of files of photos: 1 problem")
