"""The base image `debian:bookworm-slim`: pulled when a container registry answers, else built from Debian packages.

Both ways give the same name and the same content that Dockerfiles rely on: Debian 12 with apt, and dpkg told to leave
out documentation. Certificates that this machine trusts beyond Debian's own (a company's or a proxy's) are added, so
that apt, pip and npm work inside builds as they do outside.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from deploy.setup import debian
from deploy.setup.commands import LOG, SetupError, end_group, execute, output, say, step, tail
from deploy.setup.docker_cli import DockerCli, need_docker

NAME = "debian:bookworm-slim"
LABEL = "ops.base"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
FIRST_ANSWER_SECONDS = 15.0
PULL_SECONDS = 300.0

# As in the published image: no documentation, no translations, no apt caches, small lists; nothing is written to disk
# file by file, for a build that is cut off is thrown away.
_DPKG_SETTINGS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
)
_DROPPED = (
    *("usr/share/locale/*", "usr/share/man/*", "usr/share/info/*"),
    *("var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/debconf/*-old", "var/lib/dpkg/*-old"),
    *("var/log/*.log", "var/log/apt", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"),
)
_APT_SETTINGS = (
    'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb '
    '/var/cache/apt/*.bin || true"; };',
    'Dir::Cache::pkgcache "";',
    'Dir::Cache::srcpkgcache "";',
    'Acquire::Languages "none";',
    'Acquire::GzipIndexes "true";',
    'Apt::AutoRemove::SuggestsImportant "false";',
)


def ensure() -> None:
    """Make the base image present. Raise SetupError with what to run."""
    cli = need_docker()
    wanted = _recipe()
    state = _present(cli)
    refresh = os.environ.get("OPS_REFRESH_BASE") == "1"
    if state is not None and not refresh:
        origin, label = state
        if label == wanted or (origin == "pulled" and not _extra_certificates()):
            say("base image", f"{NAME} is present ({label or 'pulled'})")
            return
    if (state is not None and state[0] == "pulled" and not refresh) or _pull(cli):
        if _extra_certificates():
            _add_certificates(cli, wanted)
        return
    _build(cli, wanted)


def _present(cli: DockerCli) -> tuple[str, str] | None:
    """Where the local image came from, and our label on it; None when there is no such image."""
    form = '{{len .RepoDigests}} {{with .Config.Labels}}{{index . "' + LABEL + '"}}{{end}}'
    text = output([cli.path, "image", "inspect", "--format", form, NAME])
    if text is None:
        return None
    digests, _, label = text.strip().partition(" ")
    return ("pulled" if digests != "0" or label.startswith("pulled") else "built"), label


def _extra_certificates() -> list[Path]:
    return sorted(CERTIFICATES.glob("**/*.crt")) if CERTIFICATES.is_dir() else []


def _recipe() -> str:
    """Changes when the way of building or the machine's certificates do, so that the image is made anew."""
    lines = (*_APT_SETTINGS, *_DPKG_SETTINGS, *_mmdebstrap(Path("apt"), Path("dpkg"), Path("root")))
    digest = hashlib.sha256("\0".join(lines).encode())
    for path in _extra_certificates():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _pull(cli: DockerCli) -> bool:
    """Try to pull; give up quickly when no registry answers."""
    say("base image", f"pulling {NAME} …")
    began = time.monotonic()
    LOG.mkdir(parents=True, exist_ok=True)
    path = LOG / "base-pull.log"
    with path.open("wb") as sink:
        process = subprocess.Popen(
            [cli.path, "pull", NAME], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
        while process.poll() is None:
            waited = time.monotonic() - began
            if waited > PULL_SECONDS or (waited > FIRST_ANSWER_SECONDS and path.stat().st_size == 0):
                end_group(process.pid)
                break
            time.sleep(0.1)
        process.wait()
    if process.returncode == 0:
        say("base image", f"pulled in {time.monotonic() - began:.1f} s")
        return True
    reason = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no answer in time"]
    say("base image", f"no container registry can be reached ({reason[0][:160]})")
    return False


def _environment_changes() -> list[str]:
    """Settings for tools that bring their own certificates; only where the machine has additional ones."""
    if not _extra_certificates():
        return []
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    return [f"ENV {name}={BUNDLE}" for name in names]


def _add_certificates(cli: DockerCli, recipe: str) -> None:
    """Put this machine's additional certificates on top of the pulled image, under the same name."""
    text = f"adding this machine's {len(_extra_certificates())} additional certificates"
    with step("base image", text), tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(_extra_certificates()):
            (Path(folder) / f"machine-{number}.crt").write_bytes(path.read_bytes())
        lines = [
            f"FROM {NAME}",
            f"COPY *.crt {CERTIFICATES}/",
            "RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates"
            " && rm -rf /var/lib/apt/lists/*",
            *_environment_changes(),
            f"LABEL {LABEL}={recipe}",
        ]
        (Path(folder) / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
        argv = [cli.path, "build", *proxy_arguments(), "--tag", NAME, folder]
        execute(argv, log="base-certificates", timeout=300, env=cli.environment)


def proxy_arguments() -> list[str]:
    """The proxy settings of this machine as build arguments (Docker knows these names; they stay out of images)."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    return [
        part
        for name in (*names, *(name.upper() for name in names))
        if name in os.environ
        for part in ("--build-arg", name)
    ]


def _build(cli: DockerCli, recipe: str) -> None:
    if output(["mmdebstrap", "--version"]) is None:
        debian.install(
            "base image",
            ["mmdebstrap", "debian-archive-keyring"],
            f"{NAME} must be built from Debian packages",
            otherwise=f"  docker pull {NAME}     # where a container registry can be reached",
        )
    with step("base image", f"building {NAME} from Debian packages"), tempfile.TemporaryDirectory() as folder:
        LOG.mkdir(parents=True, exist_ok=True)
        log = LOG / "base-build.log"
        archive = Path(folder) / "root.tar"
        settings = Path(folder) / "apt.conf"
        settings.write_text("\n".join(_APT_SETTINGS) + "\n", encoding="utf-8")
        dpkg_settings = Path(folder) / "dpkg.cfg"
        dpkg_settings.write_text("\n".join(_DPKG_SETTINGS) + "\n", encoding="utf-8")
        command = _mmdebstrap(settings, dpkg_settings, archive)
        with log.open("wb") as sink:
            code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        if code != 0:
            raise SetupError(f"mmdebstrap ended with code {code}\n{tail(log)}")
        changes = [f"LABEL {LABEL}={recipe}", 'CMD ["bash"]', *_environment_changes()]
        argv = [cli.path, "import", *(part for change in changes for part in ("--change", change)), str(archive), NAME]
        execute(argv, log="base-import", timeout=120)
    size = int((output([cli.path, "image", "inspect", "--format", "{{.Size}}", NAME]) or "0").strip())
    say("base image", f"{NAME} is {size / 1e6:.0f} MB")


def _mmdebstrap(settings: Path, dpkg_settings: Path, archive: Path) -> list[str]:
    """The command that makes the root file system."""
    # usr-is-merged instead of usrmerge, which would bring the whole of Perl.
    argv = ["mmdebstrap", "--variant=minbase", "--include=ca-certificates,usr-is-merged", "--format=tar"]
    argv += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=chroot/policy-rc.d"]
    argv += [f"--dpkgopt={line}" for line in _DPKG_SETTINGS]
    argv += ['--aptopt=Acquire::Languages "none"', *_host_apt_options()]
    argv += [f'--setup-hook=mkdir -p "$1"/etc/apt/apt.conf.d "$1"{CERTIFICATES}']
    for path in _extra_certificates():
        argv += [f"--setup-hook=cp '{path}' \"$1\"{CERTIFICATES}/"]
    argv += [
        f"--customize-hook=cp '{settings}' \"$1\"/etc/apt/apt.conf.d/docker-slim",
        f"--customize-hook=cp '{dpkg_settings}' \"$1\"/etc/dpkg/dpkg.cfg.d/docker",
        '--customize-hook=chroot "$1" update-ca-certificates',
        '--customize-hook=printf "#!/bin/sh\\nexit 101\\n" >"$1"/usr/sbin/policy-rc.d',
        '--customize-hook=chmod 755 "$1"/usr/sbin/policy-rc.d',
        '--customize-hook=cd "$1" && rm -rf ' + " ".join(_DROPPED),
        "bookworm",
        str(archive),
    ]
    return [*argv, *_host_sources()]


def _host_sources() -> list[str]:
    """The machine's own Debian 12 sources (it may use a mirror); none elsewhere, then Debian's own are taken."""
    if debian.release().get("VERSION_CODENAME") != "bookworm":
        return []
    candidates = [Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")]
    return [str(path) for path in candidates if path.is_file() and "bookworm" in path.read_text(encoding="utf-8")][:1]


def _host_apt_options() -> list[str]:
    """apt's proxy and clock settings of this machine, which hold for the image's own downloads as well."""
    dump = output(["apt-config", "dump"]) or ""
    wanted = re.compile(r'^(Acquire::(?:https?::Proxy|Check-Valid-Until|Check-Date)) "(.+)";$', re.MULTILINE)
    return [f'--aptopt={key} "{value}"' for key, value in wanted.findall(dump)]
