"""Gates hold on every path, and quarantine beats them all."""

from __future__ import annotations

import pytest

from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.core.release import Action
from ops_pipeline.errors import (
    PolicyRefused,
    StoreDamaged,
)
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.plan import plan
from ops_pipeline.services.promote import promote
from ops_pipeline.services.records import encode
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.services.shipping import CRITICAL, shipped


@pytest.fixture
def bed() -> Bed:
    return Bed()


REFUSED = {
    "scan failed": (lambda bed: bed.image("9", findings=(CRITICAL,)), "CVE-2026-1"),
    "never scanned": (lambda bed: bed.image("9", scanned=False), "no scan report"),
    "in quarantine": (
        lambda bed: bed.store.write(
            f"quarantine/{bed.image('9').ref.digest[7:]}.json",
            encode(Quarantine(bed.image("9").ref.digest, "it leaks", "ann", bed.clock.now())),
        ),
        "it leaks",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_gates_refuse_every_path_before_anything_is_touched(bed: Bed, why: str) -> None:
    platform = bed.platform()
    deploy(platform, "dev", "api", digest=bed.image("9").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("9").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("10").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("11").ref.digest, progress=quiet)
    for key in bed.store.objects:
        if key.startswith("scans/" + bed.image("9").ref.digest[7:]):
            bed.store.delete(key)
    make, words = REFUSED[why]
    bed.clock.advance(1)
    if why == "never scanned":
        for key in bed.store.objects:
            if key.startswith("scans/"):
                bed.store.delete(key)
    make(bed)
    digest = next(key for key in bed.store.objects if key == "images/api/latest")
    digest = bed.store.objects[digest].decode().strip()
    stored, containers = bed.store.objects, bed.containers()
    paths = {
        "deploy": lambda: deploy(platform, "prod", "api", progress=quiet),
        "deploy a digest": lambda: deploy(platform, "prod", "api", digest=digest, progress=quiet),
        "promote": lambda: promote(platform, "prod", "api", progress=quiet),
        "roll back": lambda: roll_back(platform, "prod", "api", to=1, progress=quiet),
    }
    for name, path in paths.items():
        with pytest.raises(PolicyRefused) as caught:
            path()
        assert words in caught.value.message, name
    assert bed.containers() == containers
    untouched = {key for key in stored if not key.startswith(("leases/", "journal/"))}
    assert {key: stored[key] for key in untouched} == {key: bed.store.objects[key] for key in untouched}
    assert words in " ".join(plan(platform, "prod", "api").refusals)


def test_a_return_to_the_warm_standby_is_warned_not_refused_for_its_scan(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    bed.clock.advance(1)
    bed.image("1.0.0", findings=(CRITICAL,))
    lines: list[str] = []
    made = roll_back(bed.platform(), "prod", "api", progress=lines.append)
    assert made.restores == 1 and any("CVE-2026-1" in warning for warning in made.scan_warnings)
    assert any(line.startswith("warning: ") for line in lines)


def test_quarantine_beats_even_the_warm_standby(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    digest = releases(bed.store, "prod", "api")[-1].digest
    bed.store.write(f"quarantine/{digest[7:]}.json", encode(Quarantine(digest, "leaks", "ann", bed.clock.now())))
    with pytest.raises(PolicyRefused, match="leaks"):
        roll_back(bed.platform(), "prod", "api", progress=quiet)
    assert not refusals(bed.platform(), "prod", "api", digest, Action.ROLLBACK, warm=True).allowed


def test_a_damaged_quarantine_record_never_lets_a_digest_pass(bed: Bed) -> None:
    image = bed.image("1.0.0")
    bed.store.write(f"quarantine/{image.ref.digest[7:]}.json", b"{")
    with pytest.raises(StoreDamaged, match="quarantine/"):
        deploy(bed.platform(), "prod", "api", progress=quiet)
