"""`ops backups`: the sets there are, what is known of each, which would go; checking, holding, accepting them."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, BackedUp, DryRun, MaybeBackedUp, SetId, TheSet, Url, Wait
from ops_pipeline.cli.backup_words import age_words, check_words, drill_words, show_set, standing_words
from ops_pipeline.cli.default_command import defaulting
from ops_pipeline.cli.output import err, out, plain, print_json, said, table
from ops_pipeline.cli.runs import act
from ops_pipeline.core.backup.restore_plan import size
from ops_pipeline.defs.run_events import Launch
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services.backup.wanted import backed_up, check_backed_up, set_problems

if TYPE_CHECKING:
    from ops_pipeline.services.backup.sets import BackupSet

backups = typer.Typer(
    cls=defaulting("list"),
    help="The backup sets of an environment: ops backups ENV.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(backups, name="backups")

Reason = Annotated[str, typer.Option("--why", help="Reason, kept with the set")]
HoldName = Annotated[str, typer.Option("--name", help="Name of the hold")]


@backups.command("list")
def list_(
    environment: BackedUp,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first")] = 50,
    as_json: AsJson = False,
) -> None:
    """Every set, newest first: ops backups ENV.

    Age, why it was taken, size, checks, drill, holds, quarantine.
    """
    from ops_pipeline.services.backup.sets import list_sets

    check_backed_up(project.catalogue, environment, "ENV")
    listing, now = list_sets(project.platform, environment), project.platform.clock.now()
    if as_json:
        print_json(
            {
                "environment": environment,
                "sets": [_facts(one) for one in listing.sets[:limit]],
                "damaged": plain(listing.damaged),
                "chain": listing.chain,
            }
        )
        return
    shown = table("set", "age", "trigger", "sources", "data", "new", "checked", "drilled", "stands")
    for one in listing.sets[:limit]:
        manifest = one.manifest
        shown.add_row(
            one.id,
            age_words(manifest.started_at, now),
            manifest.trigger.value,
            ", ".join(one.sources),
            size(sum(p.files.plain_size if p.files else p.stream.plain_size for p in manifest.parts)),
            size(manifest.stored_size),
            check_words(one.state, now),
            drill_words(one.state, now),
            standing_words(one),
        )
    out.print(shown if listing.sets else f"{environment} has no backup set; take one: ops backup {environment}")
    more = len(listing.sets) - limit
    if more > 0:
        out.print(f"  and {more} older ones (--limit)")
    for damaged in listing.damaged:
        said(err, f"{damaged.id} is damaged: {damaged.problem}", indent=4)
    for line in listing.chain:
        said(err, line, indent=4)


@backups.command()
def show(set_id: TheSet, as_json: AsJson = False) -> None:
    """Everything known of one set.

    Its parts, what proved them whole, checks, drills, holds.
    """
    _, one = _located(set_id)
    if as_json:
        print_json({**_facts(one), "manifest": plain(one.manifest), "state": plain(one.state)})
        return
    show_set(out, one, project.platform.clock.now())


@backups.command()
def check(
    environment: BackedUp,
    set_id: SetId = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Read every byte: of this set, or of every set when none is named")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether what is stored is what was stored.

    Without options: the structure of every set, and the share of all bytes that is due. Exit code 1 when something is
    wrong. Needs no key.
    """
    from ops_pipeline.services.backup.integrity import check_set
    from ops_pipeline.services.backup.sets import list_sets

    check_backed_up(project.catalogue, environment, "ENV", set_problems(set_id, "--set"))
    platform = project.platform
    listing = list_sets(platform, environment)
    if set_id:
        wanted: Sequence[str] = [set_id]
    else:
        wanted = [one.id for one in (listing.sets if everything else listing.sets[:1])]
    share = 1.0 if everything else (0.0 if set_id else None)
    problems = [f"{one.id}: {one.problem}" for one in listing.damaged] + list(listing.chain)
    found = []
    for name in wanted:
        result = check_set(platform, environment, name, share=share, progress=_progress(as_json))
        found.append({"set": name, "read_share": result.share, "problems": result.problems})
        problems += [f"{name}: {problem}" for problem in result.problems]
    weak = list(platform.vault_findings())
    if as_json:
        print_json({"environment": environment, "checks": found, "problems": problems, "weaknesses": weak})
    for line in () if as_json else weak:
        said(err, f"warning: {line}", indent=4)
    if problems and as_json:
        # The document says it already.
        raise SystemExit(Permanent.exit_code)
    if problems:
        raise Permanent(
            f"{environment}: {len(problems)} problems in stored sets\n" + "\n".join(problems),
            hint="Runbook: docs/runbooks/backup-damaged.md",
        )
    if not as_json:
        count = f"{len(listing.sets)} sets" if share is None else f"{len(found)} sets"
        out.print(f"[green]{environment}: nothing is wrong[/green] with {count}")


@backups.command()
def prune(
    environment: MaybeBackedUp = "",
    dry_run: DryRun = False,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Clear away the sets that are over their time.

    With --dry-run it only says, for every set, whether it stays or goes, and why.
    """
    if environment:
        check_backed_up(project.catalogue, environment, "ENV")
    if not dry_run:
        config = {"prune_environments": {"environment": environment, "dry_run": False}}
        outcome = act(
            project, Launch("prune_backups", config), url=url, environment=environment, wait=wait, as_json=as_json
        )
        if outcome is not None and not as_json:
            out.print(f"[green]{outcome.made.get('deleted', 0)} sets are cleared away[/green]")
        return
    from ops_pipeline.services.backup.pruning_plan import plan_prune

    names = [environment] if environment else backed_up(project.catalogue)
    plans = {name: plan_prune(project.platform, name) for name in names}
    if as_json:
        print_json([{"environment": name, "frozen": one.frozen, "sets": one.decisions} for name, one in plans.items()])
        return
    now = project.platform.clock.now()
    for name, plan in plans.items():
        said(out, f"{name}: {plan.words}")
        shown = table("set", "age", "", "why")
        for one in plan.decisions:
            mark = "stays" if one.keep else "[red]goes[/red]"
            shown.add_row(one.id, age_words(one.taken_at, now), mark, one.reason)
        if plan.decisions:
            out.print(shown)


@backups.command()
def hold(set_id: TheSet, name: HoldName = "kept", why: Reason = "", as_json: AsJson = False) -> None:
    """Keep a set until somebody says `unhold`."""
    from ops_pipeline.services.backup.set_holds import hold_set

    environment, one = _located(set_id, _reason(why))
    held = hold_set(project.platform, environment, one.id, name=name, reason=why, by=getpass.getuser())
    _changed(held, f"is held: {name}", as_json)


@backups.command()
def unhold(set_id: TheSet, name: HoldName = "kept", as_json: AsJson = False) -> None:
    """Take a hold off a set: from here on its age counts."""
    from ops_pipeline.services.backup.set_holds import release_set_hold

    environment, one = _located(set_id)
    _changed(release_set_hold(project.platform, environment, one.id, name=name), f"is not held: {name}", as_json)


@backups.command()
def accept(set_id: TheSet, why: Reason = "", as_json: AsJson = False) -> None:
    """Say that a set in quarantine is right.

    It counts again, and retention goes on. Who said so and why stays with it, as a hold.
    """
    from ops_pipeline.services.backup.set_holds import lift_quarantine

    environment, one = _located(set_id, _reason(why))
    lifted = lift_quarantine(project.platform, environment, one.id, reason=why, by=getpass.getuser())
    _changed(lifted, "counts as good", as_json)


@backups.command()
def forget(
    set_id: Annotated[str, typer.Argument(metavar="ID", help="Whole id of the set")],
    environment: Annotated[str, typer.Option("--env", help="Environment; needed for a set that cannot be read")] = "",
    why: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Delete one set for good.

    Also one that is damaged or in quarantine; never the newest good one.
    """
    from ops_pipeline.services.backup.prune import forget_set

    if not environment:
        environment, _ = _located(set_id, _reason(why))
    else:
        check_backed_up(project.catalogue, environment, "--env", _reason(why))
    forget_set(
        project.platform,
        environment,
        set_id,
        reason=why,
        by=getpass.getuser(),
        progress=_progress(as_json),
    )
    if as_json:
        print_json({"environment": environment, "set": set_id, "forgotten": True})
        return
    out.print(f"{environment}: set {set_id} is gone")


def _located(set_id: str, others: Sequence[Problem] = ()) -> tuple[str, BackupSet]:
    """Environment and set of an id. Raise BadInput together with `others`, NotFound, StoreDamaged."""
    from ops_pipeline.services.backup.sets import find_set

    problems = [*set_problems(set_id, "ID"), *others]
    if set_id.lower() == "latest":
        problems.append(Problem("ID", "`latest` of which environment? Name a set"))
    if problems:
        raise BadInput(problems, subject="arguments", hint="`ops backups ENV` lists the ids.")
    found: list[tuple[str, BackupSet]] = []
    damaged: OpsError | None = None
    for environment in backed_up(project.catalogue):
        try:
            found.append((environment, find_set(project.platform, environment, set_id)))
        except NotFound:
            continue
        except BadInput:
            raise
        except Permanent as error:
            damaged = damaged or error
    if len(found) > 1:
        places = ", ".join(f"{one.id} of {environment}" for environment, one in found)
        raise BadInput([Problem("ID", f"`{set_id}` is the beginning of several sets: {places}")], subject="arguments")
    if found:
        return found[0]
    if damaged is not None:
        raise damaged
    raise NotFound(f"there is no backup set {set_id}", hint="`ops backups ENV` lists them.")


def _reason(why: str) -> list[Problem]:
    if why.strip():
        return []
    return [Problem("--why", "is missing: who finds it later has to know the reason")]


def _changed(one: BackupSet, words: str, as_json: bool) -> None:
    if as_json:
        print_json(_facts(one))
        return
    out.print(f"{one.manifest.environment}: set {one.id} {words}", markup=False)


def _facts(one: BackupSet) -> dict[str, object]:
    manifest, state = one.manifest, one.state
    return {
        "id": one.id,
        "environment": manifest.environment,
        "started_at": plain(manifest.started_at),
        "ended_at": plain(manifest.ended_at),
        "trigger": manifest.trigger.value,
        "reason": manifest.reason,
        "run_id": manifest.run_id,
        "sources": one.sources,
        "partial": manifest.partial,
        "data_bytes": sum(p.files.plain_size if p.files else p.stream.plain_size for p in manifest.parts),
        "new_bytes": manifest.stored_size,
        "good": one.good,
        "damaged": state.damaged,
        "read_share": state.read_share,
        "drilled_at": plain(state.drilled_at),
        "holds": [hold.name for hold in state.holds],
        "quarantined": state.quarantined,
        "manifest_sha256": one.manifest_sha256,
    }


def _progress(as_json: bool) -> Progress:
    return (lambda line: None) if as_json else (lambda line: err.print(line, markup=False))
