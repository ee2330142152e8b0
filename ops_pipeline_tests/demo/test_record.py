"""What the demonstration remembers of acts that passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples.demo.record import Record, digest_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_what_passed_is_known_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "new" / "passed.json"
    record = Record(file, "a")
    record.note("canary", NOON, 101.234)
    record.note("disaster", NOON + timedelta(minutes=1), 30)
    again = Record(file, "a").passed
    assert list(again) == ["canary", "disaster"]
    assert again["canary"].at == NOON
    assert again["canary"].seconds == 101.2
    assert not list(tmp_path.glob("new/*.new"))


def test_nothing_is_known_of_another_state(tmp_path: Path) -> None:
    file = tmp_path / "passed.json"
    Record(file, "a").note("canary", NOON, 1)
    other = Record(file, "b")
    assert other.passed == {}
    other.note("disaster", NOON, 1)
    assert list(Record(file, "b").passed) == ["disaster"]
    assert Record(file, "a").passed == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"state": "a"}', '{"state": "a", "passed": {"canary": {"at": "noon"}}}', "\udcff"]
)
def test_a_damaged_record_counts_as_empty(tmp_path: Path, text: str) -> None:
    file = tmp_path / "passed.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert Record(file, "a").passed == {}


def test_a_change_of_any_file_is_another_state_and_byte_code_is_none(tmp_path: Path) -> None:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "settings.yaml").write_text("a: 1")
    names = ("code", "settings.yaml")
    first = digest_of(tmp_path, names)
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_text("x")
    assert digest_of(tmp_path, names) == first
    seen = {first}
    for change in (("code/a.py", "2"), ("code/b.py", "1"), ("settings.yaml", "a: 2")):
        (tmp_path / change[0]).write_text(change[1])
        seen.add(digest_of(tmp_path, names))
    assert len(seen) == 4
