"""What the demonstration prints. Acts that play side by side print into a block each, shown when they are over."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console

terminal = Console(highlight=False)
"""Where people look."""

_printing = threading.Lock()
_block: ContextVar[Block | None] = ContextVar("block", default=None)
_last_shown = time.monotonic()


class Block:
    """The output of one act, kept until the act is over."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.console = Console(
            file=self._text,
            highlight=False,
            force_terminal=terminal.is_terminal,
            color_system=terminal.color_system,  # type: ignore[arg-type]  # a name it knows: it is its own
            width=terminal.width,
        )
        self.newest = ""
        """What the act said last, to show that it goes on."""

    @property
    def text(self) -> str:
        """All of it, with colours if the terminal has any."""
        return self._text.getvalue()


class _Printer:
    """Prints into the block of the act that is being played, else on the terminal."""

    is_terminal = terminal.is_terminal

    def print(self, *things: Any, **options: Any) -> None:
        """Like rich's."""
        block = _block.get()
        if block is None:
            with _printing:
                _seen()
                terminal.print(*things, **options)
        else:
            block.console.print(*things, **options)


console = _Printer()


def title(text: str) -> None:
    """Announce a part of the demonstration."""
    with _printing:
        _seen()
        terminal.print()
        terminal.rule(f"[bold]{text}", align="left")


def line(text: str) -> None:
    """One line on the terminal, whoever says it."""
    with _printing:
        _seen()
        terminal.print(text, soft_wrap=True)


def show(heading: str, block: Block, end: str) -> None:
    """Show a block whole; `end` says how it ended."""
    with _printing:
        _seen()
        terminal.print()
        terminal.rule(f"[bold]{heading}", align="left")
        terminal.file.write(block.text)
        terminal.print(end, soft_wrap=True)


def in_block() -> Block | None:
    """The block this act prints into, None when it has the terminal to itself."""
    return _block.get()


@contextmanager
def printing_into(block: Block | None) -> Iterator[None]:
    """What this thread prints goes there."""
    token = _block.set(block)
    try:
        yield
    finally:
        _block.reset(token)


def silent_for() -> float:
    """Seconds since anything was shown."""
    return time.monotonic() - _last_shown


def _seen() -> None:
    global _last_shown
    _last_shown = time.monotonic()
