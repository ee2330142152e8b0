"""What makes a set odd: table and properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.backup.anomaly import Facts, Limits, anomalies

LIMITS = Limits()
MB = 1_000_000
USUAL = Facts("listings", "postgres", {"listing": 1000, "user": 500}, 10 * MB, 0.30)
PHOTOS = Facts("photos", "volume", {"files": 3000}, 1500 * MB)


def judged(now: Facts, *before: Facts, limits: Limits = LIMITS) -> str:
    return "; ".join(anomalies({now.source: now}, [{one.source: one} for one in before], limits))


CASES = {
    "the same": (USUAL, ""),
    "a little less": (replace(USUAL, rows={"listing": 800, "user": 400}), ""),
    "rows fell": (replace(USUAL, rows={"listing": 500, "user": 200}), "700 rows, 1,500 in the sets before it (-53.3%)"),
    "a table emptied": (replace(USUAL, rows={"listing": 1000, "user": 0}), "user is empty, it had 500 rows"),
    "a table gone": (replace(USUAL, rows={"listing": 1000}), "user is gone, it had 500 rows"),
    "bytes fell": (replace(USUAL, plain_size=4 * MB), "4,000,000 bytes, 10,000,000 in the sets before it (-60.0%)"),
    "bytes rose": (replace(USUAL, plain_size=150 * MB), "150,000,000 bytes, 10,000,000 in the sets before it (15"),
    "bytes rose some": (replace(USUAL, plain_size=90 * MB), ""),
    "encrypted": (replace(USUAL, incompressible=0.98), "98% of its bytes cannot be compressed, 30% in the sets"),
    "a little denser": (replace(USUAL, incompressible=0.40), ""),
    "files deleted": (replace(PHOTOS, rows={"files": 10}), "10 files, 3,000 in the sets before it (-99.7%)"),
    "files rewritten": (replace(PHOTOS, kept=0.02), "only 2% of the files' contents of the set before it"),
    "files added": (replace(PHOTOS, rows={"files": 9000}, plain_size=4500 * MB, kept=1.0), ""),
    "another kind": (replace(USUAL, kind="mysql", rows={}), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    now, words = CASES[case]
    usual = USUAL if now.source == "listings" else PHOTOS
    said = judged(now, *[usual] * 5)
    assert (words in said) if words else (said == "")
    if words:
        assert said.startswith(f"{now.source}: ")


def test_nothing_before_nothing_odd() -> None:
    assert judged(replace(USUAL, rows={})) == ""
    assert anomalies({"photos": PHOTOS}, [{"listings": USUAL}], LIMITS) == ()


def test_small_sources_are_not_judged() -> None:
    small = Facts("listings", "postgres", {"listing": 99}, 5000)
    assert judged(replace(small, rows={"listing": 0}, plain_size=10), small) == ""
    assert judged(replace(small, rows={"listing": 0}), small, limits=Limits(min_rows=50)) != ""


def test_a_source_that_counts_nothing_is_judged_by_its_size() -> None:
    dark = Facts("cache", "redis", {}, MB, 0.5)
    assert "bytes" in judged(replace(dark, plain_size=1000), dark)
    assert judged(replace(dark, plain_size=1000), replace(dark, plain_size=5000)) == ""


def test_one_odd_set_among_the_good_ones_changes_nothing() -> None:
    odd = replace(USUAL, rows={"listing": 5, "user": 0}, plain_size=1000)
    assert judged(USUAL, odd, USUAL, USUAL, USUAL) == ""
    assert judged(odd, odd, USUAL, USUAL, USUAL) != ""


@given(st.floats(0.51, 1.9), st.integers(100, 10**7))
def test_ordinary_growth_and_shrinking_is_never_odd(factor: float, rows: int) -> None:
    before = Facts("d", "mysql", {"t": rows}, rows * 100, 0.3)
    now = Facts("d", "mysql", {"t": int(rows * factor) + 1}, int(rows * 100 * factor) + 1, 0.3)
    assert judged(now, before) == ""


@given(st.floats(0.0, 0.49), st.integers(100, 10**7))
def test_losing_more_than_allowed_is_always_odd(left: float, rows: int) -> None:
    before = Facts("d", "mysql", {"t": rows}, rows * 100, 0.3)
    assert judged(replace(before, rows={"t": int(rows * left)}), before) != ""
