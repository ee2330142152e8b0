"""What a person may set when launching backups, drills, restores and pruning; checked before anything is touched."""

from __future__ import annotations

from typing import Literal

import dagster as dg
from pydantic import Field

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.defs.run_config import MAX_REASON
from ops_pipeline.errors import BadInput, Problem


class BackupConfig(dg.Config):
    """How to take a set. With nothing changed: all data sources of the environment."""

    reason: str = Field(default="", description="Why, in your words; kept in the set's manifest")
    sources: list[str] = Field(
        default_factory=list,
        description="Names of data sources; empty = all. A set of some sources only never counts as the fresh one",
    )


class DrillConfig(dg.Config):
    """Which set to restore into a scratch place."""

    set: str = Field(default="", description="Id of a set; empty = the newest good one")


class RestoreConfig(dg.Config):
    """What to restore. With nothing changed: say what restoring the newest good set would do, and change nothing."""

    date: str = Field(
        default="",
        description=(
            "2026-11-20 or 2026-11-20T14:30 (UTC): the newest good set taken before that day's end, or before that "
            "moment; empty = the newest good set"
        ),
    )
    set: str = Field(default="", description="Id of a set, instead of `date`; `ops backups ENV` lists them")
    sources: list[str] = Field(default_factory=list, description="Names of data sources; empty = all of the set")
    into: str = Field(
        default="",
        description="Restore beside, under this name, and leave it there without any swap; one source only",
    )
    only: list[str] = Field(
        default_factory=list, description="Patterns of files, tables or collections; empty = everything of the sources"
    )
    dry_run: bool = Field(
        default=True, description="Only say what would happen and how old the data is; take it away to restore"
    )
    confirm: str = Field(
        default="",
        description="To restore: the environment's name once more. What is live is replaced, and kept as a hold",
    )
    action: Literal["restore", "undo", "release", "resume", "abandon"] = Field(
        default="restore",
        description=(
            "restore: see above. undo: what a restore replaced becomes live again. release: remove for good what a "
            "restore keeps. resume, abandon: finish, or take back, a restore that was killed"
        ),
    )
    token: str = Field(
        default="",
        description="undo and release: token of the restore, as `ops restores ENV` lists them; resume and abandon: "
        "empty = the unfinished one",
    )


class PruneConfig(dg.Config):
    """Where to clear away sets that are over their time."""

    environment: str = Field(default="", description="Name of the environment; empty = all that have backups")
    dry_run: bool = Field(default=False, description="Only say what would be kept and deleted, and why")


def check_backup(config: BackupConfig, catalogue: Catalogue, environment: str) -> None:
    """Raise BadInput naming every source the environment does not have, and a reason that is too long."""
    from ops_pipeline.services.backup.wanted import source_problems

    problems = source_problems(catalogue, environment, config.sources, "run config: sources")
    if len(config.reason) > MAX_REASON:
        words = f"{len(config.reason)} characters; at most {MAX_REASON} are kept"
        problems.append(Problem("run config: reason", words))
    if problems:
        raise BadInput(problems, subject="launch")


def check_drill(config: DrillConfig) -> None:
    """Raise BadInput when the set cannot be one."""
    from ops_pipeline.services.backup.wanted import set_problems

    problems = set_problems(config.set, "run config: set")
    if problems:
        raise BadInput(problems, subject="launch")


def check_restore(config: RestoreConfig, catalogue: Catalogue, environment: str) -> None:
    """Raise BadInput naming every field that cannot be used."""
    from ops_pipeline.services.backup.wanted import Places, restore_problems

    problems = [
        *restore_problems(
            catalogue,
            environment,
            date=config.date,
            set_id=config.set,
            sources=config.sources,
            into=config.into,
            places=Places(),
        ),
        *_token_problems(config),
    ]
    if not config.dry_run and config.confirm != environment:
        said = f"`{config.confirm}` is not" if config.confirm else "is empty; to change data it has to be"
        problems.append(Problem("run config: confirm", f"{said} the environment's name, {environment}"))
    if problems:
        raise BadInput(problems, subject="launch")


def chosen_environments(config: PruneConfig, catalogue: Catalogue) -> list[str]:
    """Environments pruning covers. Raise BadInput for one that is unknown or has no backups."""
    from ops_pipeline.services.backup.wanted import backed_up, environment_problems

    if not config.environment:
        return backed_up(catalogue)
    problems = environment_problems(catalogue, config.environment, "run config: environment")
    if problems:
        raise BadInput(problems, subject="launch")
    return [config.environment]


def _token_problems(config: RestoreConfig) -> list[Problem]:
    from ops_pipeline.services.backup.wanted import token_problems

    problems = token_problems(config.token, "run config: token")
    if config.action == "restore":
        if config.token:
            problems.append(Problem("run config: token", "means nothing for restore; leave it empty"))
        return problems
    problems += [
        Problem(f"run config: {name}", f"means nothing for {config.action}; leave it empty")
        for name in ("date", "set", "sources", "into", "only")
        if getattr(config, name)
    ]
    if config.action in ("undo", "release") and not config.token:
        problems.append(Problem("run config: token", f"is empty; name the restore to {config.action}"))
    return problems
