"""What people get told: one row per mistake, with the exact words."""
# ruff: noqa: E501 - rows of a table stay whole

from __future__ import annotations

from pathlib import Path

import pytest

from ops_pipeline.catalogue.load import load
from ops_pipeline.errors import BadInput

GOOD = """\
version: 1
project: shop
registry: {address: "127.0.0.1:5000/shop"}
store: {directory: .ops/store}
environments:
  dev:
    hosts: [{name: one}]
    url: http://127.0.0.1:8081
    subnet: 10.1.0.0/24
  prod:
    hosts:
      - name: one
    url: http://127.0.0.1:8080
    subnet: 10.2.0.0/24
    promote_from: dev
    services:
      api: {replicas: 2}
services:
  api:
    build: {context: api}
    port: 8000
    route: {path: /api}
    environment:
      LOG_LEVEL: info
    secrets:
      PASSWORD: env:PASSWORD
    volumes:
      shop-{environment}-data: /data
  web:
    build: {context: web}
    port: 8080
"""

WAIVER = "scan: {waivers: [{id: CVE-1, reason: not reachable here, owner: ada, expires: 2027-01-31}]}\n"


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    """What `load` says, without the file's name."""
    path = tmp_path / "services.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as refused:
        load(path)
    assert refused.value.exit_code == 2
    return [str(problem).removeprefix(str(path)).lstrip(": ") for problem in refused.value.problems]


def test_the_good_one_is_good(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(GOOD + WAIVER)
    catalogue = load(path)
    assert list(catalogue.services) == ["api", "web"]
    assert catalogue.scan.waivers[0].expires.isoformat() == "2027-01-31"


SHAPE = [
    # keys
    ("    port: 8000", "    prot: 8000", [
        "19 services.api.port: is missing (Port the container listens on)",
        "21 services.api.prot: unknown key; did you mean `port`?",
    ]),
    ("    port: 8000", "    port: 8000\n    Replicas: 2", [
        "22 services.api.Replicas: unknown key; did you mean `replicas`?",
    ]),
    ("    port: 8000", "    port: 8000\n    start_timeout_seconds: 5", [
        "22 services.api.start_timeout_seconds: unknown key; it belongs to services.api.health",
    ]),
    ("{context: api}", "{context: api, replicas: 2}", [
        "20 services.api.build.replicas: unknown key; it belongs to services.api",
    ]),
    ("{path: /api}", "{path: /api, zzz: 1}", [
        "22 services.api.route.zzz: unknown key; known: host, path, strip_prefix",
    ]),
    ("    port: 8000", "    port: 8000\n    port: 8001", [
        "22 services.api.port: given twice; the first one is on line 21",
    ]),
    ("  web:", "  api:", [
        "29 services.api: given twice; the first one is on line 19",
    ]),
    ("  web:", "  Web_1:", [
        "29 services.Web_1: must be lower-case letters, digits and hyphens, start with a letter and have at most 31 "
        "characters; found `Web_1`",
    ]),
    ("version: 1\n", "", ["1 version: is missing (Version of this file's format)"]),
    ("version: 1", "version: 2", ["1 version: must be `1`; found `2`"]),
    # values
    ("port: 8000", 'port: "8000"', ["21 services.api.port: must be a whole number; found `8000`; write it without quotes"]),
    ("port: 8000", "port: 08000", [
        "21 services.api.port: must be a whole number; found `08000`; write it without leading zeros",
    ]),
    ("port: 8000", "port: yes", ["21 services.api.port: must be a whole number; found `yes`"]),
    ("port: 8000", "port: true", ["21 services.api.port: must be a whole number; found `true`"]),
    ("port: 8000", "port: 80.5", ["21 services.api.port: must be a whole number; found `80.5`"]),
    ("port: 8000", "port: 70000", ["21 services.api.port: must be at most 65535; found `70000`"]),
    ("port: 8000", "port:", ["21 services.api.port: has no value; give it a whole number or remove the line"]),
    ("port: 8000", "port: [8000]", ["21 services.api.port: must be a whole number; found a list"]),
    ("port: 8000", "port: 99999999999999999999", [
        "21 services.api.port: must be a whole number; found `99999999999999999999`; write it without quotes",
    ]),
    ("port: 8000", "port: 8000\n    drain_seconds: .inf", ["22 services.api.drain_seconds: must be a number; found `.inf`"]),
    ("port: 8000", "port: 8000\n    read_only: no", ["22 services.api.read_only: must be `true` or `false`; found `no`"]),
    ("port: 8000", "port: 8000\n    strategy: canry", [
        "22 services.api.strategy: must be one of `blue_green`, `rolling`, `canary`; found `canry`; did you mean `canary`?",
    ]),
    ("port: 8000", "port: 8000\n    flags: run/flags", ["22 services.api.flags: must start with `/`; found `run/flags`"]),
    ("port: 8000", "port: 8000\n    canary: []", ["22 services.api.canary: must have at least one entry"]),
    ("port: 8000", "port: 8000\n    canary: [{weight: 0}, {weight: 101}, {weight: 100}]", [
        "22 services.api.canary[0].weight: must be at least 1; found `0`",
        "22 services.api.canary[1].weight: must be at most 100; found `101`",
    ]),
    ("    promote_from: dev", "    flags: {new-badges: {on: yes, percent: 101, guards: Api}}", [
        "15 environments.prod.flags.new-badges.on: must be `true` or `false`; found `yes`",
        "15 environments.prod.flags.new-badges.percent: must be at most 100; found `101`",
        "15 environments.prod.flags.new-badges.guards: must be lower-case letters, digits and hyphens, start with a letter "
        "and have at most 31 characters; found `Api`",
    ]),
    ("    promote_from: dev", "    flags: {New_Badges: {on: true}}", [
        "15 environments.prod.flags.New_Badges: must be lower-case letters, digits and hyphens, start with a letter and have "
        "at most 31 characters; found `New_Badges`",
    ]),
    ("port: 8000", "port: 8000\n    tmpfs: /tmp", ["22 services.api.tmpfs: must be a list (`- item` lines); found `/tmp`"]),
    ("port: 8000", "port: 8000\n    thresholds: {error_rate: 5}", [
        "22 services.api.thresholds.error_rate: must be less than 1; found `5`",
    ]),
    ("{context: api}", "api", ["20 services.api.build: must be a mapping (`key: value` lines); found `api`"]),
    ("LOG_LEVEL: info", "LOG_LEVEL: 7", ["24 services.api.environment.LOG_LEVEL: must be text; put it in quotes"]),
    ("LOG_LEVEL: info", "LOG_LEVEL: true", ["24 services.api.environment.LOG_LEVEL: must be text; put it in quotes"]),
    ("LOG_LEVEL: info", "LOG_LEVEL:", ["24 services.api.environment.LOG_LEVEL: has no value; give it text or remove the line"]),
    ("path: /api", "path: api", ["22 services.api.route.path: must start with `/`; found `api`"]),
    ("env:PASSWORD", "hunter2", [
        "26 services.api.secrets.PASSWORD: must be a reference, `env:NAME` or `file:PATH`, never the secret itself",
    ]),
    ("      - name: one", "      []", ["11 environments.prod.hosts: must have at least one entry"]),
    ("version: 1\n", "version: 1\nscan: {severities: [critical]}\n", [
        "2 scan.severities[0]: must be one of `CRITICAL`, `HIGH`, `MEDIUM`, `LOW`, `UNKNOWN`; found `critical`; did you "
        "mean `CRITICAL`?",
    ]),
    ("version: 1\n", "version: 1\n" + WAIVER.replace("2027-01-31", "31.1.2027").replace("not reachable here", "no"), [
        "2 scan.waivers[0].reason: must have at least 10 characters; found `no`",
        "2 scan.waivers[0].expires: must be a date, YYYY-MM-DD; found `31.1.2027`",
    ]),
]  # fmt: skip

CONSISTENCY = [
    ("{directory: .ops/store}", "{}", ["4 store: needs exactly one of `directory` and `azure`; it has neither"]),
    ("{directory: .ops/store}", "{directory: x, azure: {container: ops-ledger, sas_url: env:X}}", [
        "4 store: needs exactly one of `directory` and `azure`; it has both",
    ]),
    ("{directory: .ops/store}", "{azure: {container: Ops}}", [
        "4 store.azure: needs exactly one of `account_url`, `connection_string` and `sas_url`; it has none",
        "4 store.azure.container: must be 3 to 63 lower-case letters, digits and single hyphens",
    ]),
    ("{directory: .ops/store}", "{azure: {container: ops, account_url: 'http://x.blob.core.windows.net'}}", [
        "4 store.azure.account_url: must be a URL, https://host[:port]",
    ]),
    ("127.0.0.1:5000/shop", "http://127.0.0.1:5000/shop", [
        "3 registry.address: must be host[:port][/prefix] in lower case, without `http://`",
    ]),
    ("127.0.0.1:5000/shop", "ada:hunter2@registry.example.org", [
        "3 registry.address: must be host[:port][/prefix] in lower case; credentials never stand here, Docker's own "
        "configuration has them",
    ]),
    ("http://127.0.0.1:8081", "127.0.0.1:8081", ["8 environments.dev.url: must be a URL, http://host[:port]/…"]),
    ("http://127.0.0.1:8081", "http://ada:hunter2@shop", [
        "8 environments.dev.url: must hold no user name and no password",
    ]),
    ("http://127.0.0.1:8081", "http://127.0.0.1:8080/", [
        "13 environments.prod.url: is the address of environment `dev` too",
    ]),
    ("    port: 8080", "    port: 8080\n    route: {path: /api/}", [
        "32 services.web.route: `/api/` belongs to service `api` already; two services cannot share a route",
    ]),
    ("path: /api", "path: /a b", [
        "22 services.api.route.path: must be a path such as `/api`: letters, digits and `/ . _ ~ % -`",
    ]),
    ("path: /api", "path: /api, host: 'https://shop'", [
        "22 services.api.route.host: must be a host name in lower case, without scheme, port and `*`",
    ]),
    ("promote_from: dev", "promote_from: dve", [
        "15 environments.prod.promote_from: there is no environment `dve`; did you mean `dev`?",
    ]),
    ("promote_from: dev", "promote_from: prod", [
        "15 environments.prod.promote_from: goes round in a circle: prod ← prod",
    ]),
    ("    subnet: 10.1.0.0/24", "    subnet: 10.1.0.0/24\n    promote_from: prod", [
        "10 environments.dev.promote_from: goes round in a circle: dev ← prod ← dev",
    ]),
    ("10.1.0.0/24", "10.1.0.7/24", [
        "9 environments.dev.subnet: must be an IPv4 subnet such as `10.213.0.0/22`; did you mean `10.1.0.0/24`?",
    ]),
    ("10.1.0.0/24", "fd00::/64", ["9 environments.dev.subnet: must be an IPv4 subnet such as `10.213.0.0/22`"]),
    ("10.1.0.0/24", "8.8.8.0/24", [
        "9 environments.dev.subnet: 8.8.8.0/24 is not a private subnet; take one of 10/8, 172.16/12 or 192.168/16",
    ]),
    ("10.1.0.0/24", "10.1.0.0/29", [
        "9 environments.dev.subnet: is too small: 2 replicas of all services in up to 3 releases need 6 addresses, its "
        "lower half has 2; take a /28 or larger",
    ]),
    ("10.1.0.0/24", "10.2.0.128/25", [
        "14 environments.prod.subnet: 10.2.0.0/24 overlaps 10.2.0.128/25 of environment `dev` on the same engine",
    ]),
    ("[{name: one}]", "[{name: one}, {name: one, docker: 'ssh://b'}, {name: two}, {name: three, docker: 'http://b'}]", [
        "7 environments.dev.hosts[1].name: another host of `dev` is called `one`",
        "7 environments.dev.hosts[2].docker: is the engine of host `one` too",
        "7 environments.dev.hosts[3].docker: must be unix:///path, tcp://host:port or ssh://[user@]host[:port]",
    ]),
    ("    promote_from: dev", "    flags_volume: ops-flags-dev", [
        "15 environments.prod.flags_volume: `ops-flags-dev` holds the flags of environment `dev` on the same engine",
    ]),
    ("    promote_from: dev", "    flags_volume: /srv/flags", [
        "15 environments.prod.flags_volume: must be a Docker name: letters, digits and `_ . -`",
    ]),
    ("    promote_from: dev", "    network: ops-dev\n    edge_container: ops-edge-dev", [
        "15 environments.prod.network: `ops-dev` is the network of environment `dev` on the same engine",
        "16 environments.prod.edge_container: `ops-edge-dev` is the edge of environment `dev` on the same engine",
    ]),
    ("      api: {replicas: 2}", "      apy: {replicas: 2}", [
        "17 environments.prod.services.apy: there is no service `apy`; did you mean `api`?",
    ]),
    ("{replicas: 2}", "{environment: {PASSWORD: x}}", [
        "17 environments.prod.services.api.environment.PASSWORD: stands under `secrets` too; keep one of the two",
    ]),
    ("{replicas: 2}", "{secrets: {LOG_LEVEL: env:X}}", [
        "17 environments.prod.services.api.secrets.LOG_LEVEL: stands under services.api.environment too; keep one of the "
        "two",
    ]),
    ("LOG_LEVEL: info", "PASSWORD: x", [
        "24 services.api.environment.PASSWORD: stands under `secrets` too; keep one of the two",
    ]),
    ("LOG_LEVEL: info", "LOG-LEVEL: x", [
        "24 services.api.environment.LOG-LEVEL: must be a name of letters, digits and `_`",
    ]),
    ("PASSWORD: env:PASSWORD", "../x: env:PASSWORD", [
        "26 services.api.secrets.'../x': must be a file name of letters, digits, `.`, `_` and `-`",
    ]),
    ("shop-{environment}-data: /data", "/home: /data", [
        "28 services.api.volumes.'/home': must be a Docker volume's name (letters, digits, `_ . -`, and "
        "`{environment}`); folders of the host cannot be mounted",
    ]),
    ("shop-{environment}-data: /data", "shop-{env}: data", [
        "28 services.api.volumes.'shop-{env}': must be a Docker volume's name (letters, digits, `_ . -`, and "
        "`{environment}`)",
        "28 services.api.volumes.'shop-{env}': must lead to an absolute path below `/`",
    ]),
    ("-data: /data", "-data: /tmp/", [
        "28 services.api.volumes.'shop-{environment}-data': `/tmp` is taken by tmpfs already",
    ]),
    ("-data: /data", "-data: /run/secrets", [
        "28 services.api.volumes.'shop-{environment}-data': `/run/secrets` is where the service's secrets are",
    ]),
    ("    port: 8080", "    port: 8080\n    owners: [shop]\n    build: {context: web, platforms: [arm]}", [
        "32 services.web.owners[0]: must be an e-mail address or `team:name`",
        "33 services.web.build: given twice; the first one is on line 30",
    ]),
    ("  web:", "  web:\n    owners: []", []),
    ("{context: web}", "{context: web, platforms: [arm], args: {A: x}, secrets: {A: env:A}}", [
        "30 services.web.build.platforms[0]: must be os/architecture, such as `linux/amd64`",
        "30 services.web.build.args.A: stands under build.secrets too",
    ]),
    ("version: 1\n", "version: 1\n" + WAIVER.replace("]}", ", {id: CVE-1, reason: not reachable here, owner: bob, "
     "expires: 2027-02-01}]}"), [
        "2 scan.waivers[1]: waives CVE-1 again; scan.waivers[0] does already",
    ]),
    ("version: 1\n", "version: 1\nalertmanager: {url: 'alerts:9093'}\n", [
        "2 alertmanager.url: must be a URL, http://host[:port]/…",
    ]),
    ("version: 1\n", "version: 1\nalertmanager: {url: ''}\n", []),
    # canary and thresholds
    ("    port: 8000", "    port: 8000\n    strategy: canary\n    canary: [{weight: 10}, {weight: 50}, {weight: 100}]", []),
    ("    port: 8000", "    port: 8000\n    canary: [{weight: 50}, {weight: 50}, {weight: 10}]", [
        "22 services.api.canary[1].weight: must be more than the 50 of the step before; found `50`",
        "22 services.api.canary[2].weight: must be more than the 50 of the step before; found `10`",
        "22 services.api.canary[2].weight: the last step must have 100; found `10`",
    ]),
    ("{replicas: 2}", "{canary: [{weight: 20}, {weight: 40}]}", [
        "17 environments.prod.services.api.canary[1].weight: the last step must have 100; found `40`",
    ]),
    ("    port: 8000", "    port: 8000\n    canary: [{weight: 100, min_seconds: 60, max_seconds: 30}]", [
        "22 services.api.canary[0].min_seconds: is more than max_seconds (30)",
    ]),
    ("    port: 8000", "    port: 8000\n    thresholds: {p95_seconds: 0.25}", []),
    ("    port: 8000", "    port: 8000\n    thresholds: {p95_seconds: 3}", [
        "22 services.api.thresholds.p95_seconds: must be one of the boundaries the edge counts by (0.005, 0.01, 0.025, "
        "0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10); found `3`",
    ]),
    ("{replicas: 2}", "{thresholds: {p95_seconds: 1.5}}", [
        "17 environments.prod.services.api.thresholds.p95_seconds: must be one of the boundaries the edge counts by (0.005, "
        "0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10); found `1.5`",
    ]),
    # smoke tests
    ("    port: 8000", "    port: 8000\n    verify: {smoke: [{name: a}, {name: b, path: /b, command: [b]}]}", [
        "22 services.api.verify.smoke[0]: needs exactly one of `path` and `command`; it has neither",
        "22 services.api.verify.smoke[1]: needs exactly one of `path` and `command`; it has both",
    ]),
    ("    port: 8000", "    port: 8000\n    verify: {smoke: [{name: a, path: /a}, {name: a, path: '/a b'}]}", [
        "22 services.api.verify.smoke[1].name: `a` is the name of smoke[0] too",
        "22 services.api.verify.smoke[1].path: must be a path such as `/api/version?full=1`, without spaces and `#`",
    ]),
    ("    port: 8000", "    port: 8000\n    verify: {smoke: [{name: a, command: [true], contains: ok, status: 201}]}", [
        "22 services.api.verify.smoke[0].command[0]: must be text; found `true`; put it in quotes",
    ]),
    ("    port: 8000", "    port: 8000\n    verify: {smoke: [{name: a, command: [check], contains: ok, status: 201}]}", [
        "22 services.api.verify.smoke[0].status: is for requests; a command passes when it exits with 0",
        "22 services.api.verify.smoke[0].contains: is for requests; a command passes when it exits with 0",
    ]),
    ("{replicas: 2}", "{verify: {smoke: [{name: a, path: /a, method: HEAD, contains: ok}]}}", [
        "17 environments.prod.services.api.verify.smoke[0].contains: an answer to HEAD has no body",
    ]),
    # dependencies
    ("    port: 8000", "    port: 8000\n    depends_on: [web]", []),
    ("    port: 8000", "    port: 8000\n    depends_on: [api, wbe, web, web]", [
        "22 services.api.depends_on[0]: a service cannot depend on itself",
        "22 services.api.depends_on[1]: there is no service `wbe`; did you mean `web`?",
        "22 services.api.depends_on[3]: names `web` again",
    ]),
    ("  web:\n", "  help: {build: {context: h}, port: 1, route: {path: /h}, depends_on: [web]}\n  web:\n"
     "    depends_on: [help]\n", [
        "29 services.help.depends_on: goes round in a circle: help → web → help",
    ]),
    # flags
    ("    promote_from: dev", "    flags: {new-badges: {on: true, percent: 12.5, guards: api}}", []),
    ("    promote_from: dev", "    flags: {new-badges: {percent: 12.345, guards: wbe}}", [
        "15 environments.prod.flags.new-badges.guards: there is no service `wbe`; did you mean `web`?",
        "15 environments.prod.flags.new-badges.percent: must have at most two digits after the point; found `12.345`",
    ]),
    ("    port: 8000", "    port: 8000\n    flags: /run/flags", []),
    ("    port: 8000", "    port: 8000\n    flags: /", ["22 services.api.flags: must be an absolute path below `/`"]),
    ("    port: 8000", "    port: 8000\n    flags: /run/secrets/", [
        "22 services.api.flags: `/run/secrets` is where the service's secrets are",
    ]),
    ("    port: 8000", "    port: 8000\n    flags: /tmp", ["22 services.api.flags: `/tmp` is taken by tmpfs already"]),
    ("    port: 8000", "    port: 8000\n    flags: /data", [
        "22 services.api.flags: `/data` is taken by volume `shop-{environment}-data` already",
    ]),
    ("-data: /data", "-data: /data:ro", []),
    ("-data: /data", "-data: /tmp:ro", [
        "28 services.api.volumes.'shop-{environment}-data': `/tmp` is taken by tmpfs already",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), SHAPE + CONSISTENCY)
def test_each_mistake_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if not expected:
        (tmp_path / "services.yaml").write_text(text)
        load(tmp_path / "services.yaml")
        return
    assert problems(tmp_path, text) == expected


FILES: list[tuple[str | bytes, str]] = [
    (b"", "1: is empty"),
    ("# nothing but a comment\n", "1: is empty"),
    ("- a\n", "1: must be a mapping (`key: value` lines) with services, environments and the rest"),
    ("just words\n", "1: must be a mapping (`key: value` lines) with services, environments and the rest"),
    (b"version: 1\nproject: caf\xe9\n", "is not UTF-8 (line 2); save it as UTF-8"),
    ("version: 1\nproject: \x07\n", "2: holds a control character that YAML does not allow"),
    (b"x" * (4 * 1024 * 1024 + 1), "is larger than 4 MiB"),
    ("version: 1\nservices:\n\tapi: {}\n", "3: is indented with a tab; YAML takes spaces only"),
    ("version: 1\nproject: a: b\n", "2: YAML syntax: unexpected `:`; is the line indented wrongly, or a value without quotes?"),
    ("version: 1\nproject: @x\n", "2: YAML syntax: this character cannot start a value; put the value in quotes"),
    ('version: 1\nproject: "x\n', "3: YAML syntax: a quote that is opened is never closed (opened on line 2)"),
    ("version: 1\nstore: {directory: x\nproject: y\n",
     "3: YAML syntax: a bracket or brace that is opened is never closed, or a comma is missing (opened on line 2)"),
    ("version: 1\n  project: x\n", "2: YAML syntax: unexpected `:`; is the line indented wrongly, or a value without quotes?"),
    ("version: 1\nproject: *nothing\n", "2: YAML syntax: this alias `*name` has no anchor `&name` before it"),
    ("version: 1\n---\nversion: 1\n", "2: YAML syntax: a second document (`---`) starts here; the catalogue is one"),
    ("[" * 200_000, "1: nested more than 60 levels deep"),
    ("- " * 200_000, "1: nested more than 60 levels deep"),
    ("a: &a [*a]\n", "1: nested more than 60 levels deep, or an alias holds itself"),
    ("a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)),
     "1: grows to more than 500,000 values; do its aliases multiply one another?"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), FILES)
def test_each_file_that_is_no_catalogue_is_named(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert problems(tmp_path, content) == [expected]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, words in (
        (tmp_path / "none.yaml", "does not exist; is OPS_CATALOGUE right?"),
        (tmp_path, "is a folder; the catalogue is a file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
        (tmp_path / "nul\0", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(BadInput) as refused:
            load(path)
        assert [problem.text for problem in refused.value.problems] == [words]


def test_tags_and_odd_keys(tmp_path: Path) -> None:
    text = GOOD.replace("port: 8000", "port: !env PORT").replace("{path: /api}", "{path: /api, [a, b]: c}")
    assert problems(tmp_path, text) == [
        "21 services.api.port: YAML tags such as `!env` mean nothing here",
        "21 services.api.port: has no value; give it a whole number or remove the line",
        "22 services.api.route: a key must be a plain word",
    ]


def test_aliases_and_merges_work(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(
        GOOD.replace("{context: web}", "&web {context: web}")
        + "  admin:\n    build: {<<: *web, dockerfile: Admin}\n    port: 8081\n    route: {path: /admin}\n"
        + "  help:\n    build: *web\n    port: 8082\n    route: {path: /help}\n"
    )
    services = load(path).services
    assert (services["admin"].build.context, services["admin"].build.dockerfile) == ("web", "Admin")
    assert services["help"].build == services["web"].build


def test_shape_and_consistency_are_said_together(tmp_path: Path) -> None:
    text = (
        GOOD.replace("promote_from: dev", "promote_from: dve")
        .replace("port: 8080", "port: many\n    route: {path: /api}")
        .replace("version: 1\n", "")
        .replace("10.2.0.0/24", "10.1.0.0/23")
        .replace('{address: "127.0.0.1:5000/shop"}', "{}")
    )
    assert problems(tmp_path, text) == [
        "1 version: is missing (Version of this file's format)",
        "2 registry.address: is missing (host[:port][/prefix], e.g. `127.0.0.1:5000/storefront`)",
        "13 environments.prod.subnet: 10.1.0.0/23 overlaps 10.1.0.0/24 of environment `dev` on the same engine",
        "14 environments.prod.promote_from: there is no environment `dve`; did you mean `dev`?",
        "30 services.web.port: must be a whole number; found `many`",
        "31 services.web.route: `/api` belongs to service `api` already; two services cannot share a route",
    ]


def test_a_thousand_problems_are_counted_not_listed(tmp_path: Path) -> None:
    said = problems(tmp_path, GOOD + "".join(f"  s{n}: {{port: x}}\n" for n in range(1000)))
    assert len(said) == 101
    assert said[-1].endswith("and 2900 more")


def test_two_names_that_make_one_container_name(tmp_path: Path) -> None:
    text = GOOD.replace("  web:", "  eu-api:").replace("  dev:", "  prod-eu:").replace("from: dev", "from: prod-eu")
    text = text.replace("port: 8080", "port: 8080\n    route: {path: /eu}")
    assert problems(tmp_path, text) == [
        "10 environments.prod: containers of prod-eu/api and prod/eu-api on the same engine would have one name, "
        "ops-prod-eu-api-…; rename one"
    ]
