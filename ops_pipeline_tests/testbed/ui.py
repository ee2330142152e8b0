"""The Dagster UI (1.13.27) as a person uses it, in headless Chromium.

Functions return when what they did shows on the page, or raise Playwright's TimeoutError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
LAUNCH = '"operationName":"LaunchPipelineExecution"'


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser, closed afterwards."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def page_of(opened: Browser, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A page in a profile of its own."""
    context = opened.new_context(viewport={"width": width, "height": height}, locale="en-GB", timezone_id="UTC")
    try:
        yield context.new_page()
    finally:
        context.close()


def materialize(page: Page, url: str, environment: str, service: str, *, screenshot: Path | None = None) -> str:
    """Press Materialize on the asset page of `release`, choose one partition, launch. Return the run's id."""
    open_materialize_dialog(page, url)
    choose_partition(page, environment)
    choose_partition(page, service)
    launch = page.get_by_role("button", name="Launch 1 run")
    expect(launch).to_be_enabled()
    if screenshot:
        page.screenshot(path=screenshot)
    return _launched(page, launch)


def open_materialize_dialog(page: Page, url: str) -> None:
    """Open the dialog; passes by the warning Dagster shows while upstream assets were never materialized."""
    page.goto(f"{url}/assets/release")
    page.get_by_role("button", name="Materialize").click()
    heading = page.get_by_text("Launch runs to materialize release")
    confirm = page.get_by_role("button", name="Confirm")
    expect(heading.or_(confirm)).to_be_visible(timeout=20_000)
    if confirm.is_visible():
        confirm.click()
    expect(heading).to_be_visible()


def choose_partition(page: Page, name: str) -> None:
    """Choose one key of the next dimension; they stand in alphabetical order: environment, then service."""
    # A dimension that has a choice no longer shows the placeholder, so the next one is always the first left.
    choose_partition_of(page, name, page.get_by_text("Launch runs to materialize release"))


def materialize_one(page: Page, url: str, asset: str, partition: str) -> str:
    """The same on the page of an asset with one dimension of partitions. Return the run's id."""
    page.goto(f"{url}/assets/{asset}")
    page.get_by_role("button", name="Materialize").click()
    heading = page.get_by_text(f"Launch runs to materialize {asset}")
    confirm = page.get_by_role("button", name="Confirm")
    expect(heading.or_(confirm)).to_be_visible(timeout=30_000)
    if confirm.is_visible():
        confirm.click()
    expect(heading).to_be_visible(timeout=30_000)
    chosen = page.get_by_text("Select a partition or create one")
    if chosen.is_visible():
        choose_partition_of(page, partition, heading)
    return _launched(page, page.get_by_role("button", name="Launch 1 run"))


def choose_partition_of(page: Page, name: str, elsewhere: Locator) -> None:
    """Choose one key of the only dimension, and close the menu by a click elsewhere."""
    page.get_by_text("Select a partition or create one").first.click()
    menu = page.locator("[data-radix-popper-content-wrapper]")
    menu.get_by_placeholder("Filter partitions").fill(name)
    menu.get_by_text(name, exact=True).first.click()
    elsewhere.click()
    expect(menu).to_have_count(0)


def launch_job(
    page: Page, url: str, job: str, partition: str, *, config: str = "", screenshot: Path | None = None
) -> str:
    """Open a partitioned job's launchpad, choose a partition, type a configuration (one line of YAML) over what is
    filled in unless it is empty, launch. Return the run's id."""
    page.goto(f"{url}/locations/ops_pipeline/jobs/{job}/playground")
    field = page.get_by_placeholder("Partition")
    expect(field).to_be_visible(timeout=30_000)
    field.click()
    page.get_by_text(partition, exact=True).last.click()
    expect(field).to_have_value(partition)
    editor = page.locator(".CodeMirror").first
    expect(editor).to_contain_text("config:", timeout=30_000)
    if config:
        editor.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(config)
        expect(editor).to_contain_text(config[:20])
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=30_000)
    if screenshot:
        page.screenshot(path=screenshot)
    return _launched(page, page.get_by_role("button", name="Launch Run"))


def _launched(page: Page, button: Locator) -> str:
    expect(button).to_be_enabled(timeout=30_000)
    with page.expect_response(lambda response: LAUNCH in (response.request.post_data or "")) as answered:
        button.click()
    answer = answered.value.json()["data"]["launchPipelineExecution"]
    assert "run" in answer, f"not launched: {answer}"
    return str(answer["run"]["id"])


def wait_for_run(page: Page, url: str, run_id: str, status: str, *, seconds: float = 120) -> None:
    """Stay on the run's page until it shows this status (`Success`, `Failure`, `Canceled`)."""
    page.goto(f"{url}/runs/{run_id}")
    expect(page.get_by_text(status, exact=True).first).to_be_visible(timeout=seconds * 1000)


def expect_words(page: Page, words: str, *, seconds: float = 30) -> None:
    """Wait until the page shows these words somewhere, e.g. the reason a deploy was refused."""
    expect(page.get_by_text(words).first).to_be_visible(timeout=seconds * 1000)


def open_page(page: Page, address: str, *words: str) -> None:
    """Open a page and wait until it shows all these words; reload it like a person where it stays empty."""
    page.goto(address)
    for last in (False, False, True):
        try:
            expect_words(page, words[0], seconds=30)
            break
        except AssertionError:
            if last:
                raise
            page.reload()
    for each in words[1:]:
        expect_words(page, each)


def show_step(page: Page, url: str, run_id: str, step: str) -> None:
    """Open a run's log with only what one step says."""
    page.goto(f"{url}/runs/{run_id}?logs=step%3A{step}")
    expect(page.get_by_text("STEP_START", exact=True).first).to_be_visible(timeout=20_000)
