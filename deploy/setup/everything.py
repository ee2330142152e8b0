"""All set-up, what can be done at once at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from deploy.setup import base_image, browser, database_images, docker_cli, engine, stack_images, venv
from deploy.setup.commands import RUN, say


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time in this folder; a second one waits."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("set-up", "another set-up works in this folder; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(*, for_tests: bool = False) -> bool:
    """Virtual environment, engine, compose, base image, stack images; for tests also a browser and databases.

    Return whether the engine was started here.
    """
    with alone(), ThreadPoolExecutor(max_workers=3) as pool:
        environment = pool.submit(venv.ensure)
        images = pool.submit(_engine_and_images, for_tests)
        chromium = pool.submit(browser.ensure) if for_tests else None
        environment.result()
        if chromium is not None:
            chromium.result()
        return images.result()


def _engine_and_images(for_tests: bool) -> bool:
    started = engine.ensure()
    command = docker_cli.ensure_compose()
    say("compose", f"using {' '.join(command)}")
    base_image.ensure()
    stack_images.ensure()
    if for_tests:
        database_images.ensure()
    return started
