"""The order of acts: what waits for what, what plays side by side, what is left out because it passed before."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rich.markup import escape

from examples.demo import output
from examples.demo.commands import DemoFailed, stop_everything
from examples.demo.output import Block

HEARTBEAT_SECONDS = 15.0
"""Nobody looks at a screen that stands still for longer."""


@dataclass(frozen=True)
class Act:
    """One part of the demonstration; `play` raises DemoFailed when not all is as its title says.

    It begins when all acts of `after` are over. An act with `once` need not be seen again while nothing has changed.
    """

    name: str
    title: str
    play: Callable[[], None]
    after: tuple[str, ...] = ()
    once: bool = False


def check(acts: Sequence[Act]) -> None:
    """Raise ValueError when an act waits for one that is not played before it."""
    known: set[str] = set()
    for act in acts:
        if not set(act.after) <= known:
            raise ValueError(f"{act.name} waits for {sorted(set(act.after) - known)}, not played before it")
        known.add(act.name)


def before(acts: Sequence[Act]) -> dict[str, frozenset[str]]:
    """Names of all acts that are over when an act begins, by its name."""
    found: dict[str, frozenset[str]] = {}
    for act in acts:
        found[act.name] = frozenset(act.after).union(*(found[name] for name in act.after))
    return found


def has_the_stage(act: Act, acts: Sequence[Act]) -> bool:
    """Whether nothing else can play at the same time, so that its output may appear as it comes."""
    earlier = before(acts)
    return all(
        other.name in earlier[act.name] or act.name in earlier[other.name] for other in acts if other.name != act.name
    )


@dataclass
class _Performance:
    acts: Sequence[Act]
    passed: Callable[[Act, float], None]
    began: dict[str, float] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    blocks: dict[str, Block] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def play(self, act: Act) -> None:
        block = self.blocks.get(act.name)
        failure = ""
        try:
            with output.printing_into(block):
                act.play()
        except DemoFailed as error:
            failure = str(error)
        except Exception as error:  # a bug in one thread must end the demonstration, not hang it
            failure = f"{act.title}: {type(error).__name__}: {error}"
        seconds = time.monotonic() - self.began[act.name]
        if block is not None:
            end = "[bold red]✗ failed[/]" if failure else "[bold cyan]✓[/] [dim]over[/]"
            output.show(act.title, block, f"{end} [dim]after {seconds:.0f} s[/]")
        if not failure:
            self.passed(act, seconds)
        with self.changed:
            self.over.add(act.name)
            if failure:
                self.failures.append(failure)
            self.changed.notify_all()

    def begin_what_can(self) -> None:
        for act in self.acts:
            if act.name not in self.began and set(act.after) <= self.over:
                self.began[act.name] = time.monotonic()
                if has_the_stage(act, self.acts):
                    output.title(act.title)
                else:
                    self.blocks[act.name] = Block()
                    output.line(f"[bold cyan]▶[/] {act.title} [dim]begins[/]")
                threading.Thread(target=self.play, args=(act,), daemon=True).start()

    def show_life(self) -> None:
        for name in [name for name in self.began if name not in self.over]:
            block = self.blocks.get(name)
            if block is not None and block.newest:
                title = next(act.title for act in self.acts if act.name == name)
                newest = re.sub(r"sha256:(\w{12})\w+", r"\1", block.newest)[:120]
                output.line(f"[dim]  … {title.partition(':')[0]}: {escape(newest)}[/]")


def perform(acts: Sequence[Act], passed: Callable[[Act, float], None]) -> None:
    """Play all acts, side by side where they do not wait for each other. `passed` hears of each, with its seconds.

    After a failure nothing new begins and what plays is cut short; then raise DemoFailed with the first failure's
    words. KeyboardInterrupt passes, after the same.
    """
    check(acts)
    performance = _Performance(acts, passed)
    try:
        with performance.changed:
            while not performance.failures and len(performance.over) < len(acts):
                performance.begin_what_can()
                performance.changed.wait(1)
                if output.silent_for() > HEARTBEAT_SECONDS:
                    performance.show_life()
    except BaseException:
        _cut_short(performance)
        raise
    if performance.failures:
        first = performance.failures[0]
        _cut_short(performance)
        raise DemoFailed(first)


def _cut_short(performance: _Performance, seconds: float = 15.0) -> None:
    stop_everything()
    deadline = time.monotonic() + seconds
    with performance.changed:
        while len(performance.over) < len(performance.began) and time.monotonic() < deadline:
            performance.changed.wait(0.5)


def left_out(acts: Sequence[Act], passed: Collection[str]) -> tuple[Act, ...]:
    """Acts that need not be seen again, given the names of those that passed with everything as it is now."""
    return tuple(act for act in acts if act.once and act.name in passed)
