"""What the demonstration shows of a build, and what it reads from the state of environments."""

from __future__ import annotations

import pytest

from examples.demo.delivery import digest_of, healthy, worth_showing


@pytest.mark.parametrize(
    "line",
    [
        "22:39:58 building api 1.0.0+1f371b0: there is no image yet",
        "22:41:42 [test 3/3] RUN ruff check . && ruff format --check . && python -m pytest",
        "22:42:38 [test 3/3] unchanged",
        "22:41:45   96 passed in 40.21s",
        "22:40:17   # pass 12",
        "22:41:45 tests of api passed",
        "22:41:55 check passed: vulnerability_policy: dev, prod: allowed",
        "api 1.0.0+1f371b0 sha256:1dadc753dc08c704b447050f15f52893ec88f0e31436261a7235b24190e5616e",
    ],
)
def test_decisions_and_test_results_are_shown(line: str) -> None:
    assert worth_showing(line)


@pytest.mark.parametrize(
    "line",
    [
        "22:40:24   Collecting aiohappyeyeballs==2.7.1",
        "22:42:38 [builder 4/4] unchanged",
        "22:42:38 [test 1/3] unchanged",
        "22:40:04 [runtime 2/2] RUN apt-get -qq update",
    ],
)
def test_layers_and_packages_are_not(line: str) -> None:
    assert not worth_showing(line)


def test_healthy_is_the_wanted_digest_with_all_its_containers() -> None:
    found = [
        {"environment": "dev", "service": "api", "live": None, "healthy": False},
        {"environment": "prod", "service": "api", "live": {"digest": "sha256:a"}, "healthy": True},
        {"environment": "prod", "service": "frontend", "live": {"digest": "sha256:a"}, "healthy": False},
    ]
    assert digest_of(found, "api", "dev") == ""
    assert digest_of(found, "api", "prod") == "sha256:a"
    assert healthy(found, "api", "prod", "sha256:a")
    assert not healthy(found, "api", "prod", "sha256:b")
    assert not healthy(found, "frontend", "prod", "sha256:a")
    assert not healthy(found, "api", "dev", "sha256:a")
