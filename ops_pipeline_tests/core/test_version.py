import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.version import Revision, tag_of, version_of

COMMIT = "3f2a1bc0d4e5f60718293a4b5c6d7e8f90a1b2c3"
# The regular expression that semver.org suggests, shortened to what is needed.
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")


@pytest.mark.parametrize(
    ("described", "dirty", "version"),
    [
        ("v1.4.0-0-g3f2a1bc", False, "1.4.0+3f2a1bc"),
        ("v1.4.0-3-g3f2a1bc", False, "1.4.0+3.3f2a1bc"),
        ("v1.4.0-0-g3f2a1bc", True, "1.4.0+3f2a1bc.dirty"),
        ("v2-0-g3f2a1bc", False, "2.0.0+3f2a1bc"),
        ("v2.1-0-g3f2a1bc", False, "2.1.0+3f2a1bc"),
        ("v2.0.0-rc.1-0-g3f2a1bc", False, "2.0.0-rc.1+3f2a1bc"),
        ("v2.0.0-rc.1-12-g3f2a1bc", False, "2.0.0-rc.1+12.3f2a1bc"),
        ("v1.4.0+build7-0-g3f2a1bc", False, "1.4.0+3f2a1bc"),
        ("version-one-0-g3f2a1bc", False, "0.0.0+3f2a1bc"),
        ("v01.2.3-0-g3f2a1bc", False, "0.0.0+3f2a1bc"),
        ("", False, "0.0.0+3f2a1bc"),
    ],
)
def test_version(described: str, dirty: bool, version: str) -> None:
    assert version_of(Revision(COMMIT, described, dirty)) == version


def test_without_git() -> None:
    assert version_of(Revision()) == "0.0.0+unknown"


@given(st.text(max_size=40), st.booleans())
def test_every_version_is_semver_and_every_tag_a_tag(described: str, dirty: bool) -> None:
    revision = Revision(COMMIT, described, dirty)
    version = version_of(revision)
    assert SEMVER.fullmatch(version)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag_of(version, revision, "0123456789ab"))


def test_only_an_unclear_revision_carries_the_inputs_in_its_tag() -> None:
    clean, dirty = Revision(COMMIT, "v1.4.0-0-g3f2a1bc"), Revision(COMMIT, "v1.4.0-0-g3f2a1bc", True)
    assert tag_of(version_of(clean), clean, "0123456789ab") == "1.4.0-3f2a1bc"
    assert tag_of(version_of(dirty), dirty, "0123456789ab") == "1.4.0-3f2a1bc.dirty-01234567"
