"""A person at the UI, in a real browser: deploys, reads what happened, and is refused in words.

OPS_SCREENSHOTS=folder keeps the screenshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ops_pipeline.core.release import Phase
from ops_pipeline.services.images import latest_image
from ops_pipeline.services.ledger import releases
from ops_pipeline_tests.testbed import ui
from ops_pipeline_tests.testbed.market import VULNERABLE
from ops_pipeline_tests.testbed.whole import SCREENSHOTS, Whole

pytestmark = [pytest.mark.real, pytest.mark.browser, pytest.mark.timeout(600)]
REASON = "1 HIGH blocking: CVE-2018-18074 in requests 2.19.1 (fixed in 2.20.0)"


@pytest.fixture
def page() -> Iterator[Page]:
    with ui.browser() as opened, ui.page_of(opened, height=900) as made:
        yield made


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    return Path(os.environ.get(SCREENSHOTS, tmp_path))


def shot(page: Page, path: Path) -> None:
    """A screenshot of what a person sees when everything has come to rest."""
    page.wait_for_timeout(1000)
    page.screenshot(path=path)


def test_a_person_deploys_sees_it_live_and_is_refused(whole: Whole, page: Page, shots: Path) -> None:
    url, service = whole.plane.url, whole.shop
    whole.commit(service, "1.0.0")
    built = whole.plane.ops("build", service, timeout=240)
    assert built.returncode == 0, built.stderr
    good = latest_image(whole.platform.store, service)
    assert good is not None

    run_id = ui.materialize(page, url, "dev", service, screenshot=shots / "materialize.png")
    ui.wait_for_run(page, url, run_id, "Success")
    shot(page, shots / "run.png")
    assert whole.answer("dev", service) == (200, good.version)
    (release,) = releases(whole.platform.store, "dev", service)
    assert (release.phase, release.who, release.run_id) == (Phase.LIVE, "localhost", run_id)
    page.goto(f"{url}/assets/release")
    for words in (good.ref.digest, good.version, f"{whole.platform.catalogue.environments['dev'].url}/{service}"):
        ui.expect_words(page, words)
    shot(page, shots / "release.png")

    whole.commit(service, "2.0.0", VULNERABLE)
    built = whole.plane.ops("build", service, timeout=240)
    assert built.returncode == 3, built.stderr
    assert f"refused by a check: vulnerability_policy: dev, prod: refused, {REASON}" in built.stderr
    page.goto(f"{url}/assets/scan_report?view=checks")
    ui.expect_words(page, REASON)
    shot(page, shots / "scan.png")

    before = whole.world()
    run_id = ui.materialize(page, url, "dev", service)
    ui.wait_for_run(page, url, run_id, "Failure")
    ui.show_step(page, url, run_id, "release")
    ui.expect_words(page, REASON)
    shot(page, shots / "refused.png")
    assert whole.world() == before
    assert whole.answer("dev", service) == (200, good.version)
    assert releases(whole.platform.store, "dev", service) == (release,)
