from dataclasses import replace

import pytest

from ops_pipeline.core.hygiene import REQUIRED_LABELS, broken_rules
from ops_pipeline.core.image import ImageConfig

GOOD = ImageConfig(80_000_000, "10001:10001", ("CMD", "true"), dict.fromkeys(REQUIRED_LABELS, "x"))


def test_a_good_image_breaks_no_rule() -> None:
    assert broken_rules(GOOD, 200) == ()


@pytest.mark.parametrize(
    ("image", "rule", "words"),
    [
        (replace(GOOD, size_bytes=200_000_001), "size", "200 MB, its budget is 200 MB"),
        (replace(GOOD, size_bytes=415_000_000), "size", "415 MB"),
        (replace(GOOD, user=""), "user", "runs as root"),
        (replace(GOOD, user="root"), "user", "runs as root"),
        (replace(GOOD, user="0:1000"), "user", "runs as root"),
        (replace(GOOD, healthcheck=()), "healthcheck", "no HEALTHCHECK"),
        (replace(GOOD, healthcheck=("NONE",)), "healthcheck", "no HEALTHCHECK"),
        (replace(GOOD, labels={}), "labels", "labels org.opencontainers.image.title, "),
        (
            replace(GOOD, labels={**GOOD.labels, "org.opencontainers.image.revision": ""}),
            "labels",
            "the label org.opencontainers.image.revision",
        ),
    ],
)
def test_one_broken_rule(image: ImageConfig, rule: str, words: str) -> None:
    (broken,) = broken_rules(image, 200)
    assert broken.rule == rule
    assert words in broken.text


def test_all_broken_rules_are_named_at_once() -> None:
    broken = broken_rules(ImageConfig(10**9, "", ()), 200)
    assert [entry.rule for entry in broken] == ["size", "user", "healthcheck", "labels"]


def test_exactly_the_budget_passes() -> None:
    assert broken_rules(replace(GOOD, size_bytes=200_000_000), 200) == ()
