"""Feature flags of an environment: the catalogue's word, overrides in the ledger, and the file on every host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ops_pipeline.catalogue.wording import did_you_mean
from ops_pipeline.core.flags import (
    FlagBook,
    FlagOverride,
    FlagRule,
    FlagState,
    flag_file,
    flag_state,
    flagd_document,
    with_override,
    without_override,
)
from ops_pipeline.errors import BadInput, Conflict, OpsError, Problem, Unavailable
from ops_pipeline.ports import Edge, Progress
from ops_pipeline.services.fleet import fleet_of, on_each
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

ATTEMPTS = 20
"""How often a write is tried again because somebody else wrote meanwhile."""


@dataclass(frozen=True)
class _Read:
    """The book and the tag a conditional write compares; None = there was no object."""

    book: FlagBook
    etag: str | None


def flags_key(environment: str) -> str:
    """Store key of an environment's overrides."""
    return f"flags/{environment}.json"


def flag_states(platform: Platform, environment: str) -> tuple[FlagState, ...]:
    """Every flag of an environment as it is now, by name. Raise BadInput, StoreDamaged, Unavailable."""
    rules = _rules(platform, environment)
    overrides = _read(platform, environment).book.overrides
    return tuple(flag_state(name, rule, overrides.get(name)) for name, rule in sorted(rules.items()))


def flag_book(platform: Platform, environment: str) -> FlagBook:
    """Overrides in force and the newest changes. Raise BadInput, StoreDamaged, Unavailable."""
    _rules(platform, environment)
    return _read(platform, environment).book


def guarding_flags(platform: Platform, environment: str, service: str) -> tuple[str, ...]:
    """Flags that guard a service and are on now, be it for a share: what a FAIL turns off before anything else.

    Raise BadInput, StoreDamaged, Unavailable.
    """
    return tuple(state.name for state in flag_states(platform, environment) if state.on and state.guards == service)


def set_flag(
    platform: Platform,
    environment: str,
    flag: str,
    *,
    on: bool | None = None,
    percent: float | None = None,
    who: str,
    why: str,
    progress: Progress,
) -> FlagState:
    """Override a flag, bring it to every host and return the flag as it is now.

    `percent` alone turns it on for that share of the users (0 = off); `on` alone keeps the share it has. Raise
    BadInput (unknown environment or flag, impossible percentage), StoreDamaged, Conflict, Unavailable: the override
    is written then if the message speaks of a host.
    """
    rule = _rule(platform, environment, flag)
    problems = []
    if on is None and percent is None:
        problems.append(Problem(f"flag {flag}", "say `on`, `off` or a percentage"))
    if percent is not None and not (math.isfinite(percent) and 0 <= percent <= 100):
        problems.append(Problem("percent", f"must be from 0 to 100, not {percent:g}"))
    elif None not in (on, percent) and on != bool(percent):
        problems.append(Problem("percent", f"{percent:g} and `{'on' if on else 'off'}` contradict each other"))
    if problems:
        raise BadInput(problems, subject="flags")
    now = platform.clock.now()

    def changed(book: FlagBook) -> FlagBook:
        before = flag_state(flag, rule, book.overrides.get(flag))
        wanted = bool(percent) if on is None else on
        # Off keeps the share, so that a later «on» goes back to it and not to everybody.
        share = percent or before.percent or 100.0
        override = FlagOverride(wanted, float(share), who, why, now)
        return book if book.overrides.get(flag) == override else with_override(book, flag, override)

    book = _write(platform, environment, changed)
    state = flag_state(flag, rule, book.overrides.get(flag))
    progress(f"{environment}: flag {flag} is {state.shown} ({who}: {why})")
    publish(platform, environment, progress)
    return state


def clear_override(
    platform: Platform, environment: str, flag: str, *, who: str, why: str, progress: Progress
) -> FlagState:
    """Let the catalogue's word count again, on every host, and return the flag as it is now.

    No error when nothing was overridden. Raise as `set_flag` does.
    """
    rule = _rule(platform, environment, flag)

    def changed(book: FlagBook) -> FlagBook:
        if flag not in book.overrides:
            return book
        return without_override(book, flag, who, why, platform.clock.now())

    book = _write(platform, environment, changed)
    state = flag_state(flag, rule, book.overrides.get(flag))
    progress(f"{environment}: flag {flag} is {state.shown}, as the catalogue says ({who}: {why})")
    publish(platform, environment, progress)
    return state


def turn_off(
    platform: Platform, environment: str, flag: str, *, reason: str, who: str, progress: Progress | None = None
) -> bool:
    """Turn a flag off because a verdict says so, on every host. Return whether it was on until now.

    It stays off, whatever is deployed later, until somebody turns it on or clears the override. May be repeated.
    Raise as `set_flag` does.
    """
    rule = _rule(platform, environment, flag)
    was_on = False

    def changed(book: FlagBook) -> FlagBook:
        nonlocal was_on
        before = flag_state(flag, rule, book.overrides.get(flag))
        was_on = was_on or before.on
        if not before.on:
            return book
        override = FlagOverride(False, before.percent, who, reason, platform.clock.now(), automatic=True)
        return with_override(book, flag, override)

    _write(platform, environment, changed)
    told = progress or _unheard
    if was_on:
        told(f"{environment}: flag {flag} is turned off: {reason}")
    publish(platform, environment, told)
    return was_on


def publish(platform: Platform, environment: str, progress: Progress) -> None:
    """Make the flags file of every host say what catalogue and ledger say. Changes nothing where it does already.

    Every host is tried also when another one fails. Raise Unavailable naming the hosts that did not take it (the next
    `publish`, of a deploy or of reconcile, brings it to them), StoreDamaged.
    """
    for _ in range(ATTEMPTS):
        read = _read(platform, environment)
        _bring(platform, environment, _file(platform, environment, read.book), progress)
        # Whoever writes a file reads the ledger after it: the last one to write has seen the last change.
        if _read(platform, environment).etag == read.etag:
            return
    raise Conflict(f"{flags_key(environment)} changes all the time; try again")


def stale_flags(platform: Platform, environment: str) -> Mapping[str, str]:
    """Host → what is wrong with its flags file; empty = all is as it should be. Raise StoreDamaged, Unavailable."""
    wanted = _file(platform, environment, _read(platform, environment).book)

    def one(edge: Edge) -> str:
        try:
            found = retried(platform.clock, f"read the flags of {edge.host}", edge.flags, attempts=2)
        except OpsError as error:
            return error.message
        if found == wanted or (found is None and not platform.catalogue.environments[environment].flags):
            return ""
        return "has no flags file" if found is None else "has another flags file than catalogue and ledger say"

    edges = tuple(fleet_of(platform, environment).edges.values())
    faults = on_each(edges, one)
    return {edge.host: fault for edge, fault in zip(edges, faults, strict=True) if fault}


def _bring(platform: Platform, environment: str, data: bytes, progress: Progress) -> None:
    without_flags = not platform.catalogue.environments[environment].flags
    failed: dict[str, OpsError] = {}

    def one(edge: Edge) -> None:
        try:
            found = retried(platform.clock, f"read the flags of {edge.host}", edge.flags, attempts=2)
            if found == data or (found is None and without_flags):
                return
            retried(platform.clock, f"bring the flags to {edge.host}", lambda: edge.publish_flags(data))
        except OpsError as error:
            failed[edge.host] = error
            return
        progress(f"{environment}: host {edge.host} has the flags")

    on_each(fleet_of(platform, environment).edges.values(), one)
    if failed:
        words = "; ".join(f"host {host}: {failed[host].message}" for host in sorted(failed))
        raise Unavailable(
            f"the flags of {environment} did not reach every host: {words}",
            hint="Applications there keep the flags they have. `ops reconcile` brings the new ones once it is back.",
        )


def _file(platform: Platform, environment: str, book: FlagBook) -> bytes:
    return flag_file(flagd_document(_rules(platform, environment), book.overrides))


def _rules(platform: Platform, environment: str) -> dict[str, FlagRule]:
    environments = platform.catalogue.environments
    if environment not in environments:
        text = f"there is no environment `{environment}`{did_you_mean(environment, environments)}"
        raise BadInput([Problem("environment", text)], subject="flags")
    return {
        name: FlagRule(flag.on, float(flag.percent), flag.guards or "", flag.description)
        for name, flag in environments[environment].flags.items()
    }


def _rule(platform: Platform, environment: str, flag: str) -> FlagRule:
    rules = _rules(platform, environment)
    if flag not in rules:
        text = f"{environment} has no flag `{flag}`{did_you_mean(flag, rules)}"
        hint = "" if rules else f"The catalogue declares flags under environments.{environment}.flags."
        raise BadInput([Problem("flag", text)], subject="flags", hint=hint)
    return rules[flag]


def _read(platform: Platform, environment: str) -> _Read:
    key = flags_key(environment)
    blob = retried(platform.clock, f"read {key}", lambda: platform.store.read(key))
    if blob is None:
        return _Read(FlagBook(environment), None)
    return _Read(decode(FlagBook, blob.data, key), blob.etag)


def _write(platform: Platform, environment: str, change: Callable[[FlagBook], FlagBook]) -> FlagBook:
    """Store the changed book, from whatever it is by then; nothing another writer stored is lost."""
    key = flags_key(environment)
    for _ in range(ATTEMPTS):
        read = _read(platform, environment)
        book = change(read.book)
        if book == read.book:
            return book
        data = encode(book)

        def store(data: bytes = data, etag: str | None = read.etag) -> str:
            return platform.store.write(key, data, if_match=etag, if_absent=etag is None)

        try:
            retried(platform.clock, f"write {key}", store)
        except Conflict:
            continue  # somebody else wrote, or our own first try did and its answer got lost: look again
        return book
    raise Conflict(f"{key} changes all the time; try again")


def _unheard(line: str) -> None:
    """Progress nobody asked for."""
