"""SIGKILL for real: a process that takes a backup into a directory, with the real keys, dies at several places."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ops_pipeline.services.backup.sets import list_sets, whole_set
from ops_pipeline.services.backup.stream_reading import check_stream
from ops_pipeline.services.backup.structure import structure_problems
from ops_pipeline_tests.services.backing_up import take
from ops_pipeline_tests.services.killed_backup import bed_of, vault_of

PLACES = {
    "before any part": ("state.write inflight/", 1, False),
    "inside a stream of blocks": ("listings.dump.sealed.block", 2, False),
    "when only the manifest lacks": ("state.write inflight/", 2, True),
    "when the set exists": ("state.write heads/prod/newest", 1, True),
}
"""Words in a call's name, which of these calls it dies after, and whether the set comes to be."""


@pytest.fixture(scope="module")
def recipient() -> str:
    import pyrage

    return str(pyrage.x25519.Identity.generate().to_public())


def child(root: Path, recipient: str, words: str, count: int) -> subprocess.Popen[str]:
    module = "ops_pipeline_tests.services.killed_backup"
    arguments = [sys.executable, "-m", module, str(root), recipient, words, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("place", PLACES)
def test_killed_for_real(tmp_path: Path, recipient: str, place: str) -> None:
    words, count, comes_to_be = PLACES[place]
    bed = bed_of(recipient)
    vault = vault_of(bed, tmp_path)
    platform = replace(bed.platform("second:1"), vault=lambda: vault)
    take(platform)
    with child(tmp_path, recipient, words, count) as doomed:
        assert doomed.stdout is not None
        said = doomed.stdout.readline()
        doomed.kill()
    assert words in said, said
    before = list_sets(platform, "prod")
    bed.clock.advance(2 * 3600)
    take(platform)
    after = list_sets(platform, "prod")
    assert not after.damaged and not after.chain and len(after.sets) == (3 if comes_to_be else 2)
    assert {one.id for one in before.sets} < {one.id for one in after.sets}
    for one in after.sets:
        manifest = whole_set(platform, one).manifest
        assert structure_problems(vault, bed.clock, manifest) == ()
        for part in manifest.parts:
            check_stream(vault.sets, part.stream)
