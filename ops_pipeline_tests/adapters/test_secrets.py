"""Secrets are read, and what is wrong with them is said without saying them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.errors import BadInput


def test_values_without_their_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_TEST_SECRET", "from environment")
    assert read_secret("env:OPS_TEST_SECRET", tmp_path) == "from environment"
    for content, value in (
        (b"a b\n", "a b"),
        (b"a\r\n", "a"),
        (b" a \n\n", " a \n"),
        ("pässword".encode(), "pässword"),
    ):
        (tmp_path / "s").write_bytes(content)
        assert read_secret("file:s", tmp_path) == value
        assert read_secret(f"file:{tmp_path}/s", Path("/nowhere")) == value


def test_what_cannot_be_read_is_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPS_TEST_SECRET", raising=False)
    monkeypatch.setenv("OPS_TEST_EMPTY", "")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "large").write_bytes(b"hunter2" * 10_000)
    for reference, text in (
        ("env:OPS_TEST_SECRET", "env:OPS_TEST_SECRET: this variable is not set"),
        ("env:OPS_TEST_EMPTY", "env:OPS_TEST_EMPTY: is empty"),
        ("file:none", f"file:none: {tmp_path}/none: No such file or directory"),
        ("file:.", f"file:.: {tmp_path}: Is a directory"),
        ("file:empty", "file:empty: is empty"),
        ("file:binary", f"file:binary: {tmp_path}/binary is not UTF-8 text"),
        ("file:large", f"file:large: {tmp_path}/large is larger than 64 KiB"),
        ("hunter2", "secret reference: must be `env:NAME` or `file:PATH`"),
    ):
        with pytest.raises(BadInput) as refused:
            read_secret(reference, tmp_path)
        assert [str(problem) for problem in refused.value.problems] == [text]
        assert "hunter2" not in str(refused.value)
