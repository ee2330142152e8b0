from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.inputs import PROVENANCE_ARGS, BuildInputs, inputs_hash, outline

INPUTS = BuildInputs(
    files={"app.py": "644:aa", "lib/x.py": "644:bb"},
    dockerfile="FROM debian\n",
    args={"FEATURE": "on"},
    target=None,
    test_target="test",
    platforms=("linux/amd64",),
    secret_ids=("token",),
    bases={"debian": "sha256:1"},
)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"app.py": "644:aa"}},
        {"files": {"app.py": "755:aa", "lib/x.py": "644:bb"}},
        {"files": {"app.py": "644:ab", "lib/x.py": "644:bb"}},
        {"files": {"app.py": "644:aa", "lib/y.py": "644:bb"}},
        {"dockerfile": "FROM debian \n"},
        {"args": {"FEATURE": "off"}},
        {"args": {}},
        {"target": "slim"},
        {"test_target": None},
        {"platforms": ()},
        {"secret_ids": ("token", "other")},
        {"bases": {"debian": "sha256:2"}},
    ],
)
def test_every_input_counts(change: dict[str, object]) -> None:
    assert inputs_hash(replace(INPUTS, **change)) != inputs_hash(INPUTS)  # type: ignore[arg-type]


def test_where_an_image_comes_from_does_not_count() -> None:
    args = {**INPUTS.args, **dict.fromkeys(PROVENANCE_ARGS, "anything")}
    assert inputs_hash(replace(INPUTS, args=args)) == inputs_hash(INPUTS)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5), st.randoms())
def test_order_does_not_count(files: dict[str, str], random: object) -> None:
    items = list(files.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert inputs_hash(replace(INPUTS, files=dict(items))) == inputs_hash(replace(INPUTS, files=files))


DOCKERFILE = """\
# syntax is not asked for
ARG BASE=debian:bookworm-slim
ARG TAG
FROM ${BASE} AS Base
ARG VERSION
RUN echo "FROM nothing" && \\
    FROM=1
RUN <<EOT
FROM inside/heredoc
EOT
FROM --platform=$BUILDPLATFORM node:${TAG:-20} AS assets
FROM base AS test
COPY --from=assets /a /a
COPY --from=nginx:1.27 /etc/nginx /etc/nginx
COPY --from=0 /b /b
FROM base
ARG REVISION=none CREATED
"""


def test_outline() -> None:
    found = outline(DOCKERFILE, {})
    assert found.stages == ("base", "assets", "test")
    assert found.args == {"BASE", "TAG", "VERSION", "REVISION", "CREATED"}
    assert found.bases == ("debian:bookworm-slim", "nginx:1.27", "node:20")
    assert found.final_base == "debian:bookworm-slim"
    assert found.problems == ()


def test_outline_uses_build_arguments() -> None:
    found = outline(DOCKERFILE, {"BASE": "other:1", "TAG": "22"})
    assert found.bases == ("nginx:1.27", "node:22", "other:1")
    assert found.final_base == "other:1"


@pytest.mark.parametrize(
    ("text", "bases", "final", "problems"),
    [
        ("FROM scratch\nCOPY a /\n", (), "", 0),
        ("FROM $NOTHING\n", (), "", 1),
        ("", (), "", 0),
        ("from Debian as X\nFROM x\n", ("Debian",), "Debian", 0),
        ("# escape=`\nFROM a `\n AS b\nFROM b\n", ("a",), "a", 0),
        ("FROM a:1\nFROM a:2\n", ("a:1", "a:2"), "a:2", 0),
        ("FROM host:5000/a@sha256:00\n", ("host:5000/a@sha256:00",), "host:5000/a@sha256:00", 0),
    ],
)
def test_outline_of_odd_files(text: str, bases: tuple[str, ...], final: str, problems: int) -> None:
    found = outline(text, {})
    assert (found.bases, found.final_base, len(found.problems)) == (bases, final, problems)


@given(st.text(max_size=300))
def test_outline_never_fails(text: str) -> None:
    outline(text, {})
    outline(f"FROM {text}", {})
