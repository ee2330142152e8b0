"""From what a person asks for to the plan of a restore. Nothing is changed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from ops_pipeline.core.backup.records import FILE_KINDS, Manifest
from ops_pipeline.core.backup.restore_plan import (
    CodeThen,
    Offer,
    RestorePlan,
    choose,
    minute,
    parts_of,
    source_plan,
    sources_of,
)
from ops_pipeline.errors import BadInput, NotFound, OpsError, Problem
from ops_pipeline.ports import DataSource, FileTree, Vault
from ops_pipeline.services import ledger
from ops_pipeline.services.backup.restore_journal import Stage, restores
from ops_pipeline.services.backup.sets import BackupSet, find_set, list_sets, whole_set
from ops_pipeline.services.backup.wanted import TOKEN, check_backed_up, moment, source_problems
from ops_pipeline.services.backup.what_is_live import what_is_live
from ops_pipeline.services.platform import Platform

RELEASES_LOOKED_AT = 100


def new_token() -> str:
    """Eight random characters of [0-9a-f]: the name of everything one restore makes."""
    return secrets.token_hex(4)


def plan_restore(
    platform: Platform,
    environment: str,
    *,
    date: str | datetime | None = None,
    set_id: str = "",
    sources: Sequence[str] = (),
    into: str = "",
    only: Sequence[str] = (),
    tokens: Callable[[], str] = new_token,
) -> RestorePlan:
    """What restoring would do.

    `date`: "2026-11-20" (that day's end, UTC), a time, or an aware datetime: the newest good set that was whole by
    then. `set_id`: an id or the beginning of one, good or not. Neither: the newest good set. `sources`: some data
    sources only. `into`: a name (4 to 12 small letters and digits) under which the copy stays beside, never swapped.
    `only`: patterns of files; such a copy is never swapped either, since it is not all there was.
    Raise BadInput naming every problem, NotFound, StoreDamaged, Unavailable.
    """
    check_backed_up(platform.catalogue, environment, "environment", _contradictions(date, set_id, into))
    if unknown := source_problems(platform.catalogue, environment, sources, "sources"):
        raise BadInput(unknown, subject=f"restore of {environment}")
    vault = platform.vault()
    found, why = _chosen(platform, vault, environment, date, set_id, sources)
    live = {source.name: source for source in platform.sources(environment)}
    names, problems = _names(found.manifest, live, sources, only)
    problems += _taken(platform, vault, environment, into)
    if problems:
        raise BadInput(problems, subject=f"restore of {environment}")
    token = into or tokens()
    return RestorePlan(
        environment=environment,
        set_id=found.id,
        manifest_sha256=found.manifest_sha256,
        token=token,
        why=why,
        made_at=platform.clock.now(),
        sources=tuple(source_plan(parts_of(found.manifest, name)) for name in names),
        left_out=tuple(name for name in sources_of(found.manifest) if name not in names),
        into=token if only else into,
        only=tuple(only),
        warnings=_warnings(platform, vault, found, live),
        code=_code(platform, environment, found.manifest),
    )


def check_source(source: DataSource | FileTree, kind: str) -> str:
    """Why a part of this kind cannot go to the source of this name, "" = it can. MariaDB and MySQL are told apart."""
    if source.kind == kind:
        return ""
    return f"`{source.name}` is {kind} in the set and {source.kind} in the catalogue"


def _contradictions(date: str | datetime | None, set_id: str, into: str) -> list[Problem]:
    problems = []
    if date and set_id:
        problems.append(Problem("set", "cannot be used together with a date"))
    if into and not TOKEN.fullmatch(into):
        problems.append(Problem("into", f"`{into}` must be 4 to 12 small letters and digits"))
    if isinstance(date, str) and date:
        try:
            moment(date)
        except ValueError as error:
            problems.append(Problem("date", str(error)))
    return problems


def _chosen(
    platform: Platform,
    vault: Vault,
    environment: str,
    date: str | datetime | None,
    set_id: str,
    sources: Sequence[str],
) -> tuple[BackupSet, str]:
    if set_id and set_id.strip().lower() != "latest":
        found = find_set(platform, environment, set_id, vault=vault)
        return found, "the set that was asked for"
    until = moment(date) if isinstance(date, str) and date else date or None
    assert not isinstance(until, str)
    listing = list_sets(platform, environment, vault=vault)
    choice = choose([_offer(one) for one in listing.sets], until, sources)
    if choice is None:
        fit = [one for one in listing.sets if one.good]
        said = f"; the oldest good one was whole at {minute(fit[-1].manifest.ended_at)}" if fit else ""
        by = f" that was whole by {minute(until)}" if until else ""
        raise NotFound(
            f"{environment} has no good backup set{by}{said}", hint=f"`ops backups {environment}` lists them."
        )
    chosen = next(one for one in listing.sets if one.id == choice.id)
    return whole_set(platform, chosen, vault=vault), choice.words


def _offer(one: BackupSet) -> Offer:
    unfit = "in quarantine" if one.state.quarantined else "damaged" if one.state.damaged else ""
    return Offer(one.id, one.manifest.started_at, one.manifest.ended_at, one.sources, one.manifest.partial, unfit)


def _names(
    manifest: Manifest, live: dict[str, DataSource | FileTree], sources: Sequence[str], only: Sequence[str]
) -> tuple[list[str], list[Problem]]:
    """Which sources to restore, and everything that is wrong with what was asked for."""
    held = sources_of(manifest)
    kinds = {part.source: part.kind for part in manifest.parts}
    problems = [
        Problem("sources", f"set {manifest.id} holds no `{name}` (it holds {', '.join(held)})")
        for name in dict.fromkeys(sources)
        if name not in held
    ]
    names = [name for name in held if not sources or name in sources]
    if only:
        databases = [name for name in names if kinds[name] not in FILE_KINDS]
        if sources and databases:
            problems.append(
                Problem(
                    "only",
                    f"names files, and {', '.join(databases)} are databases: restore them whole, beside under a name, "
                    "and take the table or collection from there",
                )
            )
        names = [name for name in names if kinds[name] in FILE_KINDS]
        if not names and not problems:
            problems.append(Problem("only", "names files, and the set holds databases only"))
    for name in names:
        if name not in live:
            problems.append(Problem("sources", f"the catalogue has no data source `{name}` any more"))
        elif words := check_source(live[name], kinds[name]):
            problems.append(Problem("sources", words))
    return names, problems


def _taken(platform: Platform, vault: Vault, environment: str, into: str) -> list[Problem]:
    if not into:
        return []
    known = {one.token: one for one in restores(vault, platform.clock, environment)}
    if into not in known or known[into].stage in (Stage.DONE, Stage.FAILED):
        return []
    return [Problem("into", f"there is a restore `{into}` already: {known[into].words}")]


def _warnings(
    platform: Platform, vault: Vault, found: BackupSet, live: dict[str, DataSource | FileTree]
) -> tuple[str, ...]:
    state, warnings = found.state, []
    if state.quarantined:
        warnings.append(f"the set is in quarantine: {state.quarantined}")
    if state.damaged:
        warnings.append(f"the last check of the set found: {state.checks[-1].problems[0]}")
    elif not state.checks:
        warnings.append("the set was never checked")
    if state.drilled_at is None:
        warnings.append("the set was never restored in a drill; everything is checked before anything live changes")
    if found.manifest.partial:
        warnings.append("the set was taken of some data sources only")
    if missing := [name for name in live if name not in found.sources]:
        warnings.append(f"the set holds nothing of {', '.join(missing)}")
    if not vault.sealing.can_open:
        warnings.append("no identity here opens it: restore where `backups.identity` is set")
    return (*warnings, *found.manifest.warnings)


def _code(platform: Platform, environment: str, manifest: Manifest) -> tuple[CodeThen, ...]:
    now = what_is_live(platform, environment).images
    return tuple(
        _code_then(platform, environment, service, digest, now.get(service, ""))
        for service, digest in manifest.images.items()
    )


def _code_then(platform: Platform, environment: str, service: str, then: str, now: str) -> CodeThen:
    label, number = _release(platform, environment, service, then)
    if then == now:
        return CodeThen(service, label, label)
    current = _release(platform, environment, service, now)[0] if now else "nothing"
    return CodeThen(service, label, current, number)


def _release(platform: Platform, environment: str, service: str, digest: str) -> tuple[str, int | None]:
    """Label and number of the newest release of a digest; the digest's beginning when the ledger has none."""
    try:
        for release in ledger.releases(platform.store, environment, service, limit=RELEASES_LOOKED_AT):
            if release.digest == digest:
                return f"#{release.number} ({release.version})", release.number
    except OpsError:
        pass  # what a restore would do can be said without it
    return digest[:19], None
