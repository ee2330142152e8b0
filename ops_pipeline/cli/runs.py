"""Choosing where a run happens, starting it, following it, and leaving it alone on Ctrl-C."""

from __future__ import annotations

import getpass
import os
from typing import Any

from ops_pipeline.cli.canary import Standing, show_taken_back, taken_back
from ops_pipeline.cli.follow import Outcome, RunFailed, follow
from ops_pipeline.cli.names import check_names
from ops_pipeline.cli.output import err, out, print_json
from ops_pipeline.cli.project import Project
from ops_pipeline.cli.remote import RemoteRuns, through_socket
from ops_pipeline.defs.attribution import installation_of, read_secret_file
from ops_pipeline.defs.run_events import Launch, RunClient
from ops_pipeline.errors import OpsError, RolledBack, Unavailable

DETACHED_EXIT_CODE = 130
"""Ctrl-C: we stopped looking; the run goes on."""


def choose_client(project: Project, url: str | None) -> RunClient:
    """The UI at `url` (`--url`, OPS_URL), else the catalogue's front door, else this machine's control plane or none.

    An address that was given must answer: raise Unavailable rather than act somewhere else.
    """
    address = url or os.environ.get("OPS_URL")
    if address:
        remote = RemoteRuns(address)
        if remote.answers():
            theirs = remote.whose()[0]
            if theirs not in ("", project.catalogue.project):
                raise Unavailable(f"the UI at {address} is of project {theirs}, not {project.catalogue.project}")
            return remote
        raise Unavailable(f"no Dagster UI answers at {address}", hint="Is it up? Start it there with: ops serve")
    remote, refused = RemoteRuns(project.catalogue.front_door.url), None
    try:
        if remote.answers():
            if _is_ours(project, remote):
                return remote
            err.print(f"the UI at {remote.url} belongs to another project or installation: not used")
    except Unavailable as error:
        refused = error  # a log-in page, perhaps
    direct = through_socket(project.places.door, getpass.getuser())
    if direct is not None and direct.answers():
        return direct
    if refused is not None:
        raise refused
    return _local(project)


def _is_ours(project: Project, remote: RemoteRuns) -> bool:
    """Two projects on one machine easily name the same port; acting on the other one's services would be a disaster."""
    theirs, installation = remote.whose()
    own = installation_of(read_secret_file(project.places.door / "secret"))
    return theirs in ("", project.catalogue.project) and (not own or not installation or own == installation)


def _local(project: Project) -> RunClient:
    catalogue = project.catalogue
    project.places.prepare()
    # The run's process inherits these.
    os.environ["OPS_CATALOGUE"] = str(project.catalogue_path)
    # The whole of Dagster is loaded only now: it takes seconds.
    from ops_pipeline.defs.local_runs import LocalRuns

    names = (list(catalogue.services), list(catalogue.environments))
    return LocalRuns(project.places.home, getpass.getuser(), names)


def act(
    project: Project,
    launch: Launch,
    *,
    url: str | None,
    service: str = "",
    environment: str = "",
    wait: bool = True,
    as_json: bool = False,
) -> Outcome | None:
    """Check names, start the run, follow it. Return its outcome, or None without waiting.

    Raise BadInput before anything is started, RunFailed with the run's own exit code after it failed.
    """
    client = choose_client(project, url)
    services, environments = client.names()
    check_names(services=services, environments=environments, service=service, environment=environment)
    run_id = client.launch(launch)
    link = client.link(run_id)
    try:
        err.print(f"run {run_id} on {client.where}" + (f"\n  {link}" if link else ""))
        if not wait:
            if as_json:
                print_json({"run_id": run_id, "url": link, "status": "STARTED"})
            return None
        with Standing(project, environment, service) as standing:
            outcome = follow(client, run_id, err, quiet=as_json, standing=lambda: standing.text)
    except KeyboardInterrupt:
        err.print("\ndetached: the run goes on. " + _ways_back(project, run_id, link))
        raise SystemExit(DETACHED_EXIT_CODE) from None
    _end(project, outcome, link, as_json, environment, service)
    return outcome


def _ways_back(project: Project, run_id: str, link: str) -> str:
    return f"Follow it: ops follow {run_id}. Stop it: ops stop {run_id}" + (f". See it: {link}" if link else "")


def _end(
    project: Project, outcome: Outcome, link: str, as_json: bool, environment: str = "", service: str = ""
) -> None:
    data: dict[str, Any] = {
        "run_id": outcome.run_id,
        "url": link,
        "status": outcome.status,
        "result": outcome.made,
        "checks": [{"check": check.text, "passed": check.passed} for check in outcome.checks],
    }
    try:
        outcome.raise_if_bad()
    except RunFailed as failed:
        found = None
        if failed.error == RolledBack.__name__:
            found = taken_back(project, outcome.run_id, environment, service)
        if found is not None and not as_json:
            show_taken_back(err, project, found, link)
        if as_json:
            data["error"] = {"class": failed.error, "message": failed.message, "exit_code": failed.exit_code}
            if found is not None:
                data["release"], data["verdict"] = found.release.number, found.verdict
            print_json(data)
            failed.printed = True
        raise
    if as_json:
        print_json(data)


def show_release(outcome: Outcome, environment: str, service: str) -> None:
    """The release a run made, in a few lines."""
    made = outcome.made
    out.print(
        f"[green]{environment}/{service} #{made.get('release', '?')} is {made.get('phase', '?')}[/green]: "
        f"{made.get('version', '')} {str(made.get('digest', ''))[:19]} in {made.get('seconds', 0)} s"
    )
    if made.get("url"):
        out.print(f"  {made['url']}")
    if made.get("standby"):
        out.print(f"  standby: {made['standby']}")


def stop_run(project: Project, run_id: str, url: str | None) -> None:
    """Ask a run to stop. Raise OpsError when it does not run."""
    if not choose_client(project, url).stop(run_id):
        raise OpsError(f"run {run_id} does not run any more")
    out.print(f"asked run {run_id} to stop; it undoes what it began")


def follow_run(project: Project, run_id: str, url: str | None, as_json: bool) -> None:
    """Follow a run started earlier."""
    client = choose_client(project, url)
    try:
        outcome = follow(client, run_id, err, quiet=as_json)
    except KeyboardInterrupt:
        raise SystemExit(DETACHED_EXIT_CODE) from None
    _end(project, outcome, client.link(run_id), as_json)
    if not as_json:
        out.print(f"run {run_id} succeeded")
