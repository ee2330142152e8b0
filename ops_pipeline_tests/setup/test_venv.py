"""Packages are installed by uv, set as pip is set."""

from __future__ import annotations

import pytest

from deploy.setup.commands import ROOT
from deploy.setup.venv import uv_lines, uv_variables


@pytest.mark.parametrize(
    ("listed", "variables"),
    [
        ("", {}),
        (":env:.default-timeout='180'\nglobal.no-input='1'\n", {}),
        (
            "global.index-url='https://packages.example/simple'\n",
            {"UV_DEFAULT_INDEX": "https://packages.example/simple"},
        ),
        (
            ":env:.cert='/etc/ours.pem'\nglobal.cert='/etc/theirs.pem'\n",
            {"SSL_CERT_FILE": "/etc/ours.pem"},
        ),
        (
            "install.find-links='/one\\n/two'\nglobal.extra-index-url='https://a.example https://b.example'\n",
            {"UV_FIND_LINKS": "/one,/two", "UV_INDEX": "https://a.example https://b.example"},
        ),
    ],
    ids=["nothing", "what uv need not know", "an index", "the environment counts most", "several values"],
)
def test_uv_uses_what_pip_is_set_to_use(listed: str, variables: dict[str, str]) -> None:
    assert uv_variables(listed) == variables


def test_uv_itself_is_installed_by_its_hashes() -> None:
    lines = uv_lines((ROOT / "requirements.txt").read_text()).splitlines()
    assert lines[0].startswith("uv==") and len(lines) > 10
    assert all("--hash=sha256:" in line for line in lines[1:])
    assert uv_lines("uvicorn==1 \\\n    --hash=sha256:00\n") == ""
