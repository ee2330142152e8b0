"""Manifests: what was signed is what is read; one that was changed, moved, or is of another shape is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.canonical import canonical
from ops_pipeline.core.backup.records import FilesSummary, Previous, Reference, SetKey
from ops_pipeline.errors import BadInput, StoreDamaged
from ops_pipeline.ports import Sealing
from ops_pipeline.services.backup.manifests import decode_manifest, encode_manifest, manifest_hash
from ops_pipeline_tests.fakes.object_store import InMemoryObjectStore
from ops_pipeline_tests.testbed.keys import Keys
from ops_pipeline_tests.testbed.sealed_set import SealedSet, seal_set


@pytest.fixture(scope="module")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> Sealing:
    return Keys(tmp_path_factory.mktemp("keys")).sealing()


@pytest.fixture(scope="module")
def one(sealing: Sealing) -> SealedSet:
    return seal_set(InMemoryObjectStore(), sealing, previous=Previous("01K", "ab" * 32))


def signed(sealing: Sealing, content: Any) -> bytes:
    """Any JSON at all, signed by the trusted key."""
    return canonical({"manifest": content, "signature": dict(sealing.sign(canonical(content)))})


def test_it_comes_back_without_any_identity(one: SealedSet, sealing: Sealing) -> None:
    assert decode_manifest(sealing, one.stored, one.key) == one.manifest
    assert encode_manifest(sealing, one.manifest) == one.stored
    assert manifest_hash(one.stored) != manifest_hash(one.stored + b"\n")


def test_where_nothing_can_be_opened_it_is_checked_all_the_same(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    made = seal_set(InMemoryObjectStore(), keys.sealing())
    assert decode_manifest(keys.sealing(identity=None), made.stored, made.key) == made.manifest


def test_no_secret_stands_in_it(one: SealedSet) -> None:
    assert b"AGE-SECRET" not in one.stored and b"PRIVATE KEY" not in one.stored


def test_a_file_part_comes_back(one: SealedSet, sealing: Sealing) -> None:
    place = SetKey("prod", one.manifest.id, one.manifest.started_at)
    files = FilesSummary(3, 10, 2, 1, 5, Reference(f"{place.prefix}parts/x", 9, "cd" * 32), ("photo",))
    changed = replace(one.manifest, parts=(replace(one.manifest.parts[0], files=files), *one.manifest.parts[1:]))
    assert decode_manifest(sealing, encode_manifest(sealing, changed), one.key) == changed


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), how=st.sampled_from(["flip", "cut", "insert"]))
def test_any_change_to_any_byte_is_found(one: SealedSet, sealing: Sealing, where: float, bit: int, how: str) -> None:
    at = int(where * len(one.stored))
    flipped = one.stored[:at] + bytes([one.stored[at] ^ 1 << bit]) + one.stored[at + 1 :]
    inserted = one.stored[:at] + b" " + one.stored[at:]
    with pytest.raises(StoreDamaged, match=one.key):
        decode_manifest(sealing, {"flip": flipped, "cut": one.stored[:at], "insert": inserted}[how], one.key)


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set (or, with `...`, remove) the field at a dotted path."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
        place: Any = content
        for step in parents:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", 2, "schema: 2 is not known"),
        ("schema", "1", "schema: '1' is not known"),
        ("schema", ..., "schema: None is not known"),
        ("commit", ..., "commit: Field required"),
        ("warnings", ..., "warnings is missing"),
        ("surprise", 1, "surprise is not known"),
        ("parts.0.stream.surprise", 1, r"parts\[0\]\.stream\.surprise is not known"),
        ("parts.0.stream.blocks.0.size", "5", r"parts\[0\]\.stream\.blocks\[0\]\.size is written differently"),
        ("parts.0.stream.wrapped_key", ..., r"wrapped_key: Field required"),
        ("trigger", "whim", "trigger: Input should be"),
        ("started_at", "2026-11-20T12:00:00Z", "started_at is written differently"),
        ("started_at", "yesterday", "started_at"),
        ("previous.manifest_sha256", None, "manifest_sha256: Input should be a valid string"),
        ("environment", "dev", "it is the manifest of sets/dev/"),
        ("id", "01KOTHER", "it is the manifest of .*01KOTHER"),
        ("parts.0.stream.key", "sets/prod/2026/11/19/01K/parts/listings.globals.sealed", "lies in another place"),
        ("parts.0.stream.key", "../../etc/passwd", "lies in another place"),
        ("parts.0.source", "../x", "lies in another place"),
    ],
)
def test_a_signed_manifest_of_another_shape_is_refused_with_the_field(
    one: SealedSet, sealing: Sealing, path: str, value: Any, words: str
) -> None:
    content = json.loads(one.stored)["manifest"]
    edit(path, value)(content)
    with pytest.raises(StoreDamaged, match=words) as caught:
        decode_manifest(sealing, signed(sealing, content), one.key)
    assert one.key in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, "text", None, {"schema": 1}])
def test_signed_json_that_is_no_manifest_is_refused(one: SealedSet, sealing: Sealing, content: Any) -> None:
    with pytest.raises(StoreDamaged, match=one.key):
        decode_manifest(sealing, signed(sealing, content), one.key)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b'{"manifest":{}}', b'{"manifest":{},"more":1,"signature":{}}', b"\0" * 100]
)
def test_what_is_no_signed_object_is_refused(one: SealedSet, sealing: Sealing, data: bytes) -> None:
    with pytest.raises(StoreDamaged, match=one.key):
        decode_manifest(sealing, data, one.key)


def test_a_key_that_stands_twice_is_refused(one: SealedSet, sealing: Sealing) -> None:
    twice = one.stored.replace(b'"commit":', b'"commit":"x","commit":', 1)
    with pytest.raises(StoreDamaged, match="'commit' stands twice"):
        decode_manifest(sealing, twice, one.key)


def test_another_signer_is_refused_also_over_the_same_content(one: SealedSet, sealing: Sealing, tmp_path: Path) -> None:
    stranger = Keys(tmp_path).sealing()
    with pytest.raises(StoreDamaged, match=r"signature\.key"):
        decode_manifest(sealing, encode_manifest(stranger, one.manifest), one.key)
    mixed = json.loads(one.stored)
    mixed["signature"]["signature"] = stranger.sign(canonical(mixed["manifest"]))["signature"]
    with pytest.raises(StoreDamaged, match="does not fit the content"):
        decode_manifest(sealing, canonical(mixed), one.key)


def test_an_older_manifest_does_not_pass_for_a_newer_one(sealing: Sealing) -> None:
    store = InMemoryObjectStore()
    first = seal_set(store, sealing, number=1)
    second = seal_set(store, sealing, number=2, previous=Previous(first.manifest.id, manifest_hash(first.stored)))
    with pytest.raises(StoreDamaged, match=f"it is the manifest of {first.key}"):
        decode_manifest(sealing, first.stored, second.key)
    assert second.manifest.previous is not None
    assert second.manifest.previous.manifest_sha256 == manifest_hash(store.objects[first.key])


def test_what_is_larger_than_any_manifest_is_refused_unparsed(one: SealedSet, sealing: Sealing) -> None:
    less = len(one.stored) - 1
    with pytest.raises(StoreDamaged, match="larger than"):
        decode_manifest(sealing, one.stored, one.key, most_bytes=less)
    with pytest.raises(StoreDamaged, match="larger than"):
        decode_manifest(sealing, b"{" * len(one.stored), one.key, most_bytes=less)
    with pytest.raises(BadInput, match="larger than"):
        encode_manifest(sealing, one.manifest, most_bytes=less)


def test_a_value_that_no_manifest_can_hold_is_named(one: SealedSet, sealing: Sealing) -> None:
    for change, words in (
        ({"warnings": ("\udcff",)}, r"warnings\[0\]"),
        ({"ended_at": one.manifest.ended_at.replace(tzinfo=None)}, "ended_at: a time without zone"),
    ):
        with pytest.raises(BadInput, match=words):
            encode_manifest(sealing, replace(one.manifest, **change))


def test_times_of_any_zone_are_kept_as_the_moment_they_are(one: SealedSet, sealing: Sealing) -> None:
    moved = replace(one.manifest, ended_at=one.manifest.ended_at + timedelta(microseconds=1))
    assert decode_manifest(sealing, encode_manifest(sealing, moved), one.key).ended_at == moved.ended_at
