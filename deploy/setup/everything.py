"""All set-up, what can be done at once at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from deploy.setup import base_image, browser, database_images, docker_cli, engine, sample_images, stack_images, venv
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


NOT_WAITED_FOR = ("azurite",)
"""The demonstration uses none of these, and they take longest: they are built while it waits for something else."""


class SetUp:
    """A set-up under way in the threads of a pool."""

    def __init__(self, pool: ThreadPoolExecutor, *, for_tests: bool = False, for_demo: bool = False) -> None:
        self.engine_started = False
        """Whether the engine was started here; known also when something went wrong after that."""
        self._tools = [pool.submit(venv.ensure), *([pool.submit(browser.ensure)] if for_tests else [])]
        self._images = pool.submit(self._engine_and_images, for_tests, for_demo)

    def tools(self) -> None:
        """Wait for the virtual environment, and for the browser where one is wanted. Raise SetupError."""
        for each in self._tools:
            each.result()

    def whole(self) -> None:
        """Wait for all of it. Raise SetupError."""
        self.tools()
        self._images.result()

    def _engine_and_images(self, for_tests: bool, for_demo: bool) -> None:
        self.engine_started = engine.ensure()
        say("compose", f"using {' '.join(docker_cli.ensure_compose())}")
        base_image.ensure()
        if for_demo:
            later = left_for_later()
            names = tuple(each.name for each in stack_images.IMAGES if each.name not in later)
            stack_images.ensure(names, beside=sample_images.IMAGES, workers=3)
        else:
            stack_images.ensure()
        if for_tests:
            database_images.ensure()


@contextmanager
def under_way(*, for_tests: bool = False, for_demo: bool = False) -> Iterator[SetUp]:
    """Virtual environment, engine, compose, base image, stack images; for tests also a browser and databases.

    For the demonstration the sample's layers and databases as well, and of `NOT_WAITED_FOR` only what is there. What
    can be done at once is done at once, while the body runs; leaving it waits for what is begun.
    """
    with alone(), ThreadPoolExecutor(max_workers=3) as pool:
        yield SetUp(pool, for_tests=for_tests, for_demo=for_demo)


def set_up(*, for_demo: bool = False) -> None:
    """All that benchmarks, or the demonstration, need. Raise SetupError."""
    with under_way(for_demo=for_demo) as making:
        making.whole()


def left_for_later() -> tuple[str, ...]:
    """Images, and services of their names, that the demonstration begins without."""
    return tuple(name for name in NOT_WAITED_FOR if not stack_images.present(stack_images.image(name)))
