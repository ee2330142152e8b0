"""Whether a restored copy is what was backed up: its contents against those the dump saw in its own snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops_pipeline.core.backup.records import Contents, Part

SHOWN = 20


@dataclass(frozen=True)
class Compared:
    """How many things were compared and every difference, one sentence each (at most SHOWN, then how many more)."""

    count: int
    problems: tuple[str, ...] = ()

    def and_also(self, other: Compared) -> Compared:
        """Both."""
        return Compared(self.count + other.count, (*self.problems, *other.problems))


def expected_contents(parts: Sequence[Part]) -> Contents | None:
    """What the parts of one data source say it held, None when they say nothing."""
    known = [part.arrived.contents for part in parts if part.arrived.contents is not None]
    if not known:
        return None
    counts: dict[str, int] = {}
    objects: dict[str, str] = {}
    samples: dict[str, str] = {}
    for one in known:
        counts.update(one.counts)
        objects.update(one.objects)
        samples.update(one.samples)
    return Contents(counts, objects, samples)


def compare_contents(source: str, expected: Contents | None, found: Contents) -> Compared:
    """Compare counts, objects and samples. Nothing to compare with is a problem: absence of data is no success."""
    if expected is None or not (expected.counts or expected.objects or expected.samples):
        return Compared(0, (f"{source}: the set does not say what it held, so nothing could be compared",))
    problems = [
        *_numbers(source, expected.counts, found.counts),
        *_texts(source, "", expected.objects, found.objects),
        *_texts(source, "content of ", expected.samples, found.samples),
    ]
    count = len(expected.counts) + len(expected.objects) + len(expected.samples)
    return Compared(count, shortened(source, problems))


def shortened(source: str, problems: Sequence[str]) -> tuple[str, ...]:
    """At most SHOWN of them, then how many more."""
    more = len(problems) - SHOWN
    return (*problems[:SHOWN], f"{source}: and {more} more differences") if more > 0 else tuple(problems)


def _numbers(source: str, expected: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    problems = []
    for name in sorted({*expected, *found}):
        wanted, got = expected.get(name), found.get(name)
        if wanted != got:
            problems.append(
                f"{source}: {name} is not in the restored copy ({wanted:,} were backed up)"
                if got is None
                else f"{source}: {name} was not backed up and holds {got:,}"
                if wanted is None
                else f"{source}: {name} holds {got:,}, backed up were {wanted:,}"
            )
    return problems


def _texts(source: str, prefix: str, expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    problems = []
    for name in sorted({*expected, *found}):
        wanted, got = expected.get(name), found.get(name)
        if wanted != got:
            how = "is missing" if got is None else "was not backed up" if wanted is None else "differs"
            problems.append(f"{source}: {prefix}{name} {how}")
    return problems
